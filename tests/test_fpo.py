"""Flow policy optimisation: ratios that begin at 1, a step towards what was better, the rows of its updates."""

import dataclasses

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, Unbounded

from diffpolicy import DiffusionPolicy, InputError
from diffpolicy.diffusion import FlowProcess
from diffpolicy.experiments import make_method
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import FPOLoss
from diffpolicy.policies.heads import VectorHead
from test_keys import Specs

VECTOR = Specs({"observation": Unbounded((4, 3))}, Bounded(0.0, 4.0, (4, 2)))
FLOW = {"head": VectorHead(), "schedule": FlowProcess(6), "sampler": "flow-euler", "prediction": "velocity"}


def loss_of(**options):
    policy = DiffusionPolicy.from_specs(VECTOR, **FLOW, seed=1)
    return FPOLoss(policy, CriticEnsemble(3, 1, ensemble=1, generator=torch.Generator().manual_seed(0)), **options)


def rows(advantage, m=64):
    action = 4 * torch.rand(m, 2, generator=torch.Generator().manual_seed(0))
    values = {"observation": torch.zeros(m, 3), "action": action, "value_target": torch.ones(m, 1)}
    return TensorDict({**values, "advantage": advantage(action).unsqueeze(-1)}, [m])


def test_ratios_begin_at_one_and_follow_the_kept_draws():
    loss = loss_of()
    ready = loss.begin(rows(lambda a: a[:, 0] - 2))
    assert ready["flow_loss"].shape == (64, 8)
    first, again = loss(ready), loss(ready)
    assert first["loss_objective"].item() == pytest.approx(
        -float((rows(lambda a: a[:, 0] - 2)["advantage"]).mean()), abs=1e-6
    )
    assert torch.equal(first["loss_objective"], again["loss_objective"])
    assert first["kl_approx"].item() == pytest.approx(0, abs=1e-6)
    value = loss.values(torch.zeros(1, 3))
    assert first["loss_critic"].item() == pytest.approx(0.5 * float((value - 1) ** 2), rel=1e-4)
    ready["flow_loss"] = ready["flow_loss"] + 1  # every ratio is e, and clipped where the advantage is above 0
    advantage = ready["advantage"].squeeze(-1)
    gain = torch.where(advantage > 0, 1.05 * advantage, torch.e * advantage).mean()
    assert loss(ready)["loss_objective"].item() == pytest.approx(-float(gain), rel=1e-4)
    assert loss(ready)["clip_fraction"] == 1
    assert loss(ready)["kl_approx"].item() == pytest.approx(-1, abs=1e-5)


def test_each_level_of_the_flow_is_drawn_as_often_as_any_other():
    loss = loss_of(samples=500)
    steps = loss.begin(rows(lambda a: a[:, 0]))["flow_step"]
    counts = torch.bincount(steps.flatten(), minlength=7)
    assert counts[0] == 0
    assert len(counts) == 7  # 1 to 6
    assert (counts[1:] / counts.sum() - 1 / 6).abs().max() < 0.02


def test_updates_go_towards_the_actions_that_were_better():
    loss = loss_of(clip=0.2)
    policy = loss.policy
    seen = TensorDict({"observation": torch.zeros(400, 3)}, [400])
    before = policy(seen.clone())["action"][:, 0].mean()
    optimizer = torch.optim.Adam(loss.parameters(), 3e-3)
    for _ in range(12):
        ready = loss.begin(rows(lambda a: (a[:, 0] - 2) / 2, 256))
        for _ in range(5):
            losses = loss(ready)
            optimizer.zero_grad()
            (losses["loss_objective"] + losses["loss_critic"]).backward()
            optimizer.step()
    assert policy(seen.clone())["action"][:, 0].mean() > before + 0.2


def test_mistakes_get_a_sentence():
    for clip in (0, 1, 2):
        with pytest.raises(InputError, match=f"clip must be between 0 and 1, got {clip}"):
            loss_of(clip=clip)
    with pytest.raises(InputError, match="critic_weight must be greater than 0, got 0"):
        loss_of(critic_weight=0)
    with pytest.raises(InputError, match="samples must be at least 1, got 0"):
        loss_of(samples=0)
    with pytest.raises(InputError, match="entropy must be at most 0"):
        dataclasses.replace(make_method("fpo"), entropy=0.1)
