"""Where there is a GPU: the same numbers as on the CPU within rounding, and training runs on it."""

import math

import pytest
import torch

from diffpolicy import with_recurrent_state
from diffpolicy.edge import OffloadingEnv
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
def test_training_runs_on_it(name, tmp_path):
    module = build(quick_method(name, tmp_path), SCENARIO)
    fit(module, episodes=2, accelerator="gpu")
    assert all(0 < row["delay_s"] < 1000 for row in module.history)
    losses = [value for row in module.history for key, value in row.items() if key.startswith("loss")]
    assert losses
    assert all(map(math.isfinite, losses))


def test_rows_and_draws_stay_on_it():
    """A pass over a fleet on the GPU waits for the host nowhere: counting valid rows and copying noise did."""
    env = OffloadingEnv(SCENARIO, [4], device="cuda")
    policy = build("lad-ts", SCENARIO).policy.cuda()
    td = with_recurrent_state(env, policy).reset()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            action = policy(td)["agents", "action"]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert env.full_action_spec["agents", "action"].is_in(action)
