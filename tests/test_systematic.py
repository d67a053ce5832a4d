"""Systematic draws have the policy's chances and less luck."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from diffpolicy.edge import OffloadingEnv, OffloadingProblem, Scenario, play_episodes
from diffpolicy.errors import InputError
from diffpolicy.policies import FeedforwardPolicy
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.policies.systematic import SystematicDraws

WORK = ("agents", "work_gcycles")
SEED_KEYS = (None, "shared_seed")


def scenario(slots: int = 20) -> Scenario:
    return Scenario.load("lad-ts").override(stations=6, tasks=12, slots=slots)


def constant(system: Scenario, draw: str = "sample") -> FeedforwardPolicy:
    """A policy whose chances depend on nothing."""
    policy = FeedforwardPolicy.from_specs(
        OffloadingEnv(system, [1]), hidden=[4], share_parameters=True, head=CategoricalHead(draw)
    )
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    return policy.eval()


def systematic(system: Scenario, seed_key: str | None) -> SystematicDraws:
    return SystematicDraws(constant(system), WORK, seed_key, information="stale")


@pytest.mark.parametrize("seed_key", SEED_KEYS)
def test_each_choice_keeps_its_chances(seed_key: str | None) -> None:
    system = scenario()
    draws = systematic(system, seed_key)
    env = OffloadingEnv(system, [16], information="stale")
    td, seen = env.reset(), []
    for _ in range(20):
        td = draws(td)
        seen.append(td["agents", "action"][..., 0].flatten())
        td = env.step(td)["next"]
    share = torch.bincount(torch.cat(seen), minlength=6) / torch.cat(seen).numel()
    assert (share - 1 / 6).abs().max() < 0.04


def test_stations_that_share_a_seed_spread_tasks_of_one_size_evenly() -> None:
    system = scenario()
    td = OffloadingEnv(system, [8], information="stale").reset()
    u = systematic(system, "shared_seed").uniforms(td)[:, :, 0]  # index 0 exists at every station, with the same work
    assert torch.equal((u * 6).floor().long().sort(-1).values, torch.arange(6).expand(8, 6))


def test_less_luck_is_less_delay() -> None:
    system = scenario(40)
    plain = play_episodes(system, constant(system), 4).cost.mean()
    costs = [play_episodes(system, systematic(system, seed_key), 4).cost.mean() for seed_key in SEED_KEYS]
    assert max(costs) < plain
    assert np.isfinite(costs).all()


def test_what_draws_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="draws no choices"):
        SystematicDraws(constant(scenario(), "argmax"), WORK)


def test_an_environment_that_does_not_show_what_the_draws_read_is_refused() -> None:
    env = OffloadingEnv(scenario(), [1])
    with pytest.raises(InputError, match="systematic draws read 'shared_seed'"):
        OffloadingProblem(scenario()).check(SystematicDraws(constant(scenario()), WORK, "shared_seed"), env)


def test_any_environment_with_amounts_will_do() -> None:
    policy = FeedforwardPolicy(choices=4, observation_dim=2, action_key="where", observation_keys=["seen"], hidden=[4])
    td = TensorDict(seen=torch.zeros(3, 2, 8, 2), size=torch.ones(3, 2, 8), batch_size=[3])
    spread = (SystematicDraws(policy, "size").uniforms(td) * 8).floor().long().sort(-1).values
    assert (spread.diff(dim=-1) <= 2).all()  # no run of the eight places is left out
    td["seed"] = torch.zeros(3, 2, dtype=torch.long)
    with pytest.raises(InputError, match=r"one 'seed' an environment, 3, got \[3, 2\]"):
        SystematicDraws(policy, "size", "seed").uniforms(td)
    td["size"] = torch.ones(3, 8)
    with pytest.raises(InputError, match=r"'size' of \[environments, agents, items\], got \[3, 8\]"):
        SystematicDraws(policy, "size").uniforms(td)
