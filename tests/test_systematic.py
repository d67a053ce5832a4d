"""Systematic draws have the policy's chances and less luck."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffpolicy.edge import OffloadingEnv, Scenario, play_episodes
from diffpolicy.edge.systematic import SystematicDraws
from diffpolicy.errors import InputError
from diffpolicy.policies import CategoricalPolicy
from diffpolicy.policies.heads import CategoricalHead


def scenario(slots: int = 20) -> Scenario:
    return Scenario.load("lad-ts").override(stations=6, tasks=12, slots=slots)


def constant(system: Scenario, draw: str = "sample") -> CategoricalPolicy:
    """A policy whose chances depend on nothing."""
    policy = CategoricalPolicy.from_specs(
        OffloadingEnv(system, [1]), hidden=[4], share_parameters=True, head=CategoricalHead(draw)
    )
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    return policy.eval()


@pytest.mark.parametrize("over", ["station", "stations"])
def test_each_choice_keeps_its_chances(over: str) -> None:
    system = scenario()
    draws = SystematicDraws(constant(system), over)
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
    u = SystematicDraws(constant(system)).uniforms(td)[:, :, 0]  # index 0 exists at every station, with the same work
    assert torch.equal((u * 6).floor().long().sort(-1).values, torch.arange(6).expand(8, 6))


def test_less_luck_is_less_delay() -> None:
    system = scenario(40)
    plain = play_episodes(system, constant(system), 4).cost.mean()
    costs = [
        play_episodes(system, SystematicDraws(constant(system), over), 4).cost.mean()
        for over in ("station", "stations")
    ]
    assert max(costs) < plain
    assert np.isfinite(costs).all()


def test_what_draws_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="draws no choices"):
        SystematicDraws(constant(scenario(), "argmax"))
    with pytest.raises(InputError, match="station or stations, got 'all'"):
        SystematicDraws(constant(scenario()), "all")  # type: ignore[arg-type]
