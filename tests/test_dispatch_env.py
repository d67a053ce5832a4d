"""Held requests as an environment: a pair of request and server, masked; rules as in the simulator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffpolicy.edge.dispatch import Arrivals, Held, HeldEnv, Moment, make_held, simulate
from diffpolicy.edge.dispatch.env import OrderRule, mixed_requests, problem
from diffpolicy.environments import check_problem
from diffpolicy.errors import InputError


def few(seed: int, episode: int) -> Arrivals:
    """Sixty of the mixed requests."""
    return mixed_requests(seed, episode).until(60)


class NewFirst:
    """What it has not seen before goes first, then the shortest."""

    def begin(self) -> None:
        self.seen = -1

    def see(self, moment: Moment) -> None:
        self.new = moment.number > self.seen
        self.seen = max(self.seen, int(moment.number.max()))

    def scores(self, moment: Moment) -> np.ndarray:
        return moment.rest_s - 100.0 * self.new[:, None]


@pytest.mark.parametrize("order", ["first-come", "shortest-first", "cost-minus-age:age=1", Held(NewFirst())])
def test_an_episode_costs_the_sum_of_the_simulators_delays(order: str | Held) -> None:
    """Also under an order that remembers: each lane has a memory of its own, of requests that keep their numbers."""
    held = make_held(order) if isinstance(order, str) else order
    env, rule, cost = HeldEnv(2, seed=7, draw=few), OrderRule(held), np.zeros(2)
    td, going = env.reset(), torch.ones(2, 1, dtype=torch.bool)
    while going.any():
        step = env.step(rule(td))["next"]
        cost -= (step["reward"] * going).squeeze(-1).double().numpy()
        going &= ~step["done"]
        td = step.exclude("reward")
    true = [simulate(few(7, e), held, compiled=False).delay_s.sum() for e in range(2)]
    assert cost == pytest.approx(true, rel=1e-5)


def test_the_problem_can_be_trained_on() -> None:
    check_problem(problem)


def test_what_is_not_there_is_not_allowed() -> None:
    env = HeldEnv(1, draw=few)
    td = env.reset()
    mask = td["action_mask"][0]
    assert mask.nonzero().flatten().tolist() == [0, 1, 2, 3, 64]
    with pytest.raises(InputError, match="action 9 of lane 0 is not allowed"):
        env.step(td.set("action", torch.tensor([9])))


def test_waiting_is_refused_where_nothing_will_come() -> None:
    """The last request, all servers free: only the pairs are left."""
    env = HeldEnv(1, draw=lambda seed, episode: Arrivals([0.0], [[3.0, 1.0]]))
    td = env.reset()
    assert td["action_mask"][0].nonzero().flatten().tolist() == [0, 1]
    step = env.step(td.set("action", torch.tensor([0])))["next"]
    assert (step["reward"].item(), step["terminated"].item()) == (-3.0, True)
