"""Flow Q-learning: its losses by hand, whom each moves, and a learner that reaches a known optimum."""

import dataclasses

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, Unbounded

from diffpolicy import DiffusionPolicy, InputError
from diffpolicy.diffusion import FlowProcess
from diffpolicy.experiments import make_method
from diffpolicy.objectives import FQLLoss, action_critic
from diffpolicy.policies.heads import VectorHead
from test_imitation_methods import Exact
from test_keys import Specs

VECTOR = Specs({"observation": Unbounded((4, 3))}, Bounded(0.0, 4.0, (4, 2)))
PROCESS = FlowProcess(6)


def parts(policy_c, flow_c):
    """A policy and a flow that lead to c, scaled, wherever they start."""
    shape = {"head": VectorHead(), "schedule": PROCESS}
    one = {**shape, "sampler": "one-step", "prediction": "x0", "denoiser": Exact(PROCESS, "x0", policy_c)}
    many = {**shape, "sampler": "flow-euler", "prediction": "velocity", "denoiser": Exact(PROCESS, "velocity", flow_c)}
    return DiffusionPolicy.from_specs(VECTOR, **one), DiffusionPolicy.from_specs(VECTOR, **many)


def rows(m=7, scaled=0.5, **more):
    state = {"observation": torch.randn(m, 3)}
    action = torch.full((m, 2), 2 + 2 * scaled)
    values = {**state, "action": action, "reward": torch.arange(m).float(), "next": {**state, **more}}
    return TensorDict(values, [m])


def test_losses_are_those_of_the_paper_by_hand():
    policy, flow = parts(0.1, 0.5)
    critic = action_critic(policy, hidden=[])
    with torch.no_grad():
        for p in critic.parameters():
            p.zero_()
        critic.mlp.layers[-1].weight[:, 3] = 1.0  # Q(s, a) is the first number of the scaled action
    loss = FQLLoss(policy, critic, flow, alpha=2.0, normalize_q=False, gamma=0.9)
    over = torch.arange(7) == 3
    found = loss(rows(terminated=over)).detach()
    target = torch.arange(7) + 0.9 * 0.1 * ~over
    assert found["loss_qvalue"].item() == pytest.approx(2 * float((0.5 - target).square().mean()), rel=1e-4)
    assert found["loss_actor"].item() == pytest.approx(2 * 0.4**2 - 0.1, rel=0.02)
    assert found["loss_flow"].item() == pytest.approx(0, abs=1e-6)
    assert found["distance"].item() == pytest.approx(0.4**2, rel=0.02)
    loss.normalize_q = True
    assert loss(rows())["loss_actor"].item() == pytest.approx(2 * 0.4**2 - 1, rel=0.02)


def test_each_loss_moves_its_own_network_alone():
    shape = {"head": VectorHead(), "schedule": PROCESS}
    policy = DiffusionPolicy.from_specs(VECTOR, **shape, sampler="one-step", prediction="x0")
    flow = DiffusionPolicy.from_specs(VECTOR, **shape, sampler="flow-euler", prediction="velocity")
    loss = FQLLoss(policy, action_critic(policy), flow)
    groups = {name: list(p) for name, p in loss.parameter_groups().items()}
    for name, group in (("loss_actor", "actor"), ("loss_qvalue", "critic"), ("loss_flow", "flow")):
        loss.zero_grad()
        loss(rows())[name].backward()
        moved = {key for key, ps in groups.items() if any(p.grad is not None and p.grad.any() for p in ps)}
        assert moved == {group}


@pytest.mark.parametrize("name", ["fql", "fql-plain"])
def test_it_goes_to_the_best_action_from_rows_of_a_uniform_policy(name):
    """The reward is minus the square of the first number's distance from 3, where bounds are 0 and 4."""
    method = dataclasses.replace(make_method(name), hidden=[32], gamma=0.0)
    policy = method.make_policy(VECTOR, 0)
    loss = method.make_objective(policy, 1)
    rates = {"actor": 5e-4, "critic": 1e-2, "flow": 4e-3}
    optimizer = torch.optim.Adam(
        [{"params": list(group), "lr": rates[name]} for name, group in loss.parameter_groups().items()]
    )
    draws = torch.Generator().manual_seed(0)
    for _ in range(300):
        action = 4 * torch.rand(128, 2, generator=draws)
        state = {"observation": torch.randn(128, 3, generator=draws)}
        reward = -(action[:, 0] - 3).square()
        batch = TensorDict({**state, "action": action, "reward": reward, "next": state}, [128])
        losses = loss(batch)
        optimizer.zero_grad()
        sum(value for key, value in losses.items() if key.startswith("loss")).backward()
        optimizer.step()
        loss.update_targets()
    decided = policy.eval()(TensorDict({"observation": torch.randn(400, 3, generator=draws)}, [400]))["action"]
    assert (decided[:, 0] - 3).abs().mean() < 0.5


def test_mistakes_get_a_sentence():
    policy, flow = parts(0.0, 0.0)
    critic = action_critic(policy)
    with pytest.raises(InputError, match="needs a BoundedHead, got a VectorHead"):
        FQLLoss(policy, critic, None)
    with pytest.raises(InputError, match="alpha must be at least 0, got -1"):
        FQLLoss(policy, critic, flow, alpha=-1)
    with pytest.raises(InputError, match="draw nothing but its start"):
        FQLLoss(policy, critic, flow.with_sampler("ddpm"))
