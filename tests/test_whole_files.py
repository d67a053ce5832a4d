"""A task file decided all at once: the choices and delays of the environment, step by step."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from diffpolicy.edge import Scenario, Server, TaskList, evaluation, make_policy, replay
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.pricing.policy import FleetPolicy
from diffpolicy.edge.rules.least_cost import OptTS
from diffpolicy.edge.scenario.availability import Availability

PRICED = ("price", "pretrained:live", "pretrained:stale")


def fleet(seed: int, alike: bool, stations: int = 4) -> Scenario:
    """Five servers; some stations without one of their own. Args: alike: then all are, and ties are frequent."""
    rng = np.random.default_rng(seed)
    drawn = zip(rng.uniform(3, 9, 5), rng.uniform(400, 500, 5), strict=True)
    servers = tuple(Server(6.0, 450.0) if alike else Server(float(f), float(v)) for f, v in drawn)
    return Scenario(1.0, servers, stations=(None, 2, 0, 2)[:stations])


def tasks(seed: int, scenario: Scenario, number: int, a_step: int) -> TaskList:
    """Tasks of all stations in any order, and of no origin, and sometimes no work. Args: a_step: on the mean."""
    rng = np.random.default_rng(seed)
    slot = np.unique(rng.integers(0, max(number // a_step, 1), number), return_inverse=True)[1]
    slot = np.arange(number) if a_step == 1 else np.sort(slot)
    work = rng.uniform(0.5, 3.5, number) * (rng.random(number) < 0.95)
    steps = int(slot[-1]) + 1
    mean_s = work.sum() / (0.9 * scenario.capacity_gcycles_per_s * steps)
    return TaskList(
        slot=slot,
        duration_s=rng.uniform(0.2 * mean_s, 1.8 * mean_s, steps),
        origin=rng.integers(-1, len(scenario.stations), number),
        input_mbit=rng.uniform(2, 5, number),
        result_mbit=rng.uniform(0.6, 1, number),
        work_gcycles=work,
        steps=np.full(number, 10),
        server=rng.integers(0, len(scenario.servers), number),
    )


def policy_of(name: str, scenario: Scenario):
    """By name; None: the recorded decisions. Prices have their weights moved, so that they matter."""
    if name == "recorded":
        return None
    policy = make_policy(name, scenario)
    inner = getattr(policy, "policy", policy)
    if isinstance(inner, FleetPolicy):
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in inner.denoiser.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


def step_by_step(scenario, given, policy):
    with patch.object(evaluation, "_at_once", lambda *_: None):
        return replay(scenario, given, policy)


@pytest.mark.parametrize("name", ["recorded", "opt-ts", *PRICED])
@pytest.mark.parametrize(
    ("a_step", "alike", "stations"), [(1, False, 4), (1, True, 4), (9, False, 4), (9, True, 4), (9, False, 1)]
)
def test_all_at_once_is_step_by_step(name, a_step, alike, stations) -> None:
    if name in PRICED:
        pytest.importorskip("numba")
    if name == "pretrained:stale" and a_step > 1 and stations > 1:
        pytest.skip("it imagines, see below")
    scenario = fleet(3, alike, stations)
    given = tasks(5, scenario, 150, a_step)
    with patch.object(evaluation, "_step_by_step", None):  # which is not needed
        ours = replay(scenario, given, policy_of(name, scenario))
    theirs = step_by_step(scenario, given, policy_of(name, scenario))
    assert len(set(ours.server.tolist())) == 5
    np.testing.assert_array_equal(ours.server, theirs.server)
    np.testing.assert_array_equal(ours.delay_s, theirs.delay_s)  # to the bit


def test_queues_in_blocks_are_the_same_queues() -> None:
    scenario = fleet(3, False)
    given = tasks(5, scenario, 150, 3)
    whole = replay(scenario, given)
    with patch("diffpolicy.edge.physics.file_steps._CELLS", 15):
        np.testing.assert_array_equal(replay(scenario, given).delay_s, whole.delay_s)


class Mine(OptTS):
    """Decides otherwise."""

    def decide(self, td):
        return torch.full_like(super().decide(td), 3)


def test_who_decides_otherwise_is_asked_at_every_step() -> None:
    scenario = fleet(3, False)
    given = tasks(5, scenario, 20, 4)
    assert set(replay(scenario, given, Mine(4, 5)).server.tolist()) == {3}

    class Subclass(FleetPolicy):
        pass

    for policy in (Subclass(), FleetPolicy(candidates=2), FleetPolicy(information="stale")):
        seen = []
        policy.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        one_a_step = tasks(5, scenario, 20, 1)
        policy = policy.for_scenario(scenario)
        replay(scenario, one_a_step, policy)
        stale = policy.information == "stale" and type(policy) is FleetPolicy
        assert len(seen) == (0 if stale and has_numba() else 20)  # nothing is stale where each step is one request


def has_numba() -> bool:
    from diffpolicy.edge.pricing.state import compiled_form

    return compiled_form() is not None


def test_servers_that_fail_or_were_measured_need_the_environment() -> None:
    scenario = fleet(3, False)
    given = tasks(5, scenario, 30, 4)
    failing = tuple(replace(s, availability=Availability(mtbf_s=5.0, mttr_s=1.0)) for s in scenario.servers)
    measured = replace(Scenario.load("gpu-mix"), stations=scenario.stations)
    for other, pure in ((scenario, True), (replace(scenario, servers=failing), False), (measured, False)):
        env = OffloadingEnv(other, [1], tasks=given, dtype=torch.float64)
        assert (env.file_steps() is not None) == pure
    assert OffloadingEnv(scenario, [1], tasks=given).file_steps() is None  # float32
    endless = replace(given, input_mbit=np.append(given.input_mbit[:-1], np.inf))
    assert OffloadingEnv(scenario, [1], tasks=endless, dtype=torch.float64).file_steps() is None


def test_another_precision_is_of_the_parameters_of_now_and_leaves_them() -> None:
    policy = FleetPolicy()
    chain = policy.coefficients()
    for _ in range(2):
        with torch.no_grad():
            policy.denoiser.out.add_(1)
        other = chain.to(torch.float64)
        assert torch.equal(other.denoiser.out, policy.denoiser.out.double())
    assert policy.denoiser.out.dtype == torch.float32
    assert chain.to(torch.float32) is chain
    assert dict(other.denoiser.named_parameters()).keys() == dict(policy.denoiser.named_parameters()).keys()
