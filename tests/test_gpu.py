"""Where there is a GPU: the same numbers as on the CPU within rounding, and training runs on it."""

import pytest
import torch

from diffpolicy.edge.names import METHOD_NAMES
from diffpolicy.edge.training import build
from diffpolicy.training.fit import fit
from toys import quick_method, small

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
SCENARIO = small(3, 5, 8)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_logits_agree_with_the_cpu(name):
    policy = build(name, SCENARIO).policy
    observation, latent = 5 * torch.rand(3, 9, 5), torch.rand(3, 9, 3)
    noise = policy.noise(torch.Size([3, 9]))
    here = policy.logits(observation, latent, None, noise)
    there = policy.cuda().logits(observation.cuda(), latent.cuda(), None, noise)
    assert torch.allclose(here, there.cpu(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_training_runs_on_it_and_begins_as_on_the_cpu(name, tmp_path):
    file = quick_method(name, tmp_path)
    cpu, gpu = (build(file, SCENARIO) for _ in range(2))
    fit(cpu, episodes=2)
    fit(gpu, episodes=2, accelerator="gpu")
    assert gpu.history[0]["delay_s"] == pytest.approx(cpu.history[0]["delay_s"], rel=1e-3)
