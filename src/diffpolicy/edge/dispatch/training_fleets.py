"""Fleets on which an order is trained: two that are known, and as many as are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffpolicy._types import Floats, Ints
from diffpolicy.edge.dispatch.arrivals import Arrivals

SHARES = np.array([0.15, 0.25, 0.45, 0.15])
COSTS = np.array([512**2 * 20, 768**2 * 20, 1024**2 * 25, 1536**2 * 35], dtype=np.float64)
"""vLLM-Omni's mixed workload, a quarter of the random fleets' and all of the two that are always among them."""
SERVERS = (2, 50)
LOADS = (0.5, 0.95)


@dataclass(frozen=True)
class Played:
    """Servers and what they are asked to do.

    Args:
        arrivals: they, without links, parts or luck, none of which the quick forms that play them in training know.
        seats: of each server. alike: whether all servers are, and the tail is measured by least cost rather than by
            least finish. room: how much longer the costliest kind's tail may be.
    """

    arrivals: Arrivals
    seats: tuple[int, ...]
    alike: bool
    room: float


def random_fleet(rng: np.random.Generator, count: int) -> Played:
    """2 to 50 servers at a load of .5 to .95, equal or not, some with seats or with models that they load.

    Args:
        rng: draws it. count: how many requests; fewer where more than 12 servers make them slow to play.

    Example:
        >>> played = random_fleet(np.random.default_rng(0), 10)
        >>> len(played.arrivals), len(played.seats) == played.arrivals.servers
        (10, True)
    """
    servers = int(np.exp(rng.uniform(*np.log(np.array(SERVERS) + np.array([0.0, 0.999])))))
    alike = rng.random() < 0.25
    speed = np.ones(servers) if alike else np.exp(rng.uniform(0.2, 0.7) * rng.standard_normal(servers))
    seats = rng.integers(1, 5, servers) if rng.random() < 0.25 else np.ones(servers, np.int64)
    if rng.random() < 0.25:
        costs, shares = COSTS / (COSTS @ SHARES), SHARES
    else:
        kinds = int(rng.integers(2, 7))
        costs = np.sort(np.exp(rng.uniform(0.4, 1.2) * rng.standard_normal(kinds)))
        shares = rng.dirichlet(np.full(kinds, 3.0))
        costs = costs / (costs @ shares)
    load, switches = rng.uniform(*LOADS), rng.random() < 0.25
    load, count = min(load, 0.8) if switches else load, max(min(count, 12 * count // servers), 10)
    return Played(
        poisson(rng, count, costs, shares, speed, seats, load, rng.uniform(0.05, 0.3) if switches else 0.0),
        tuple(int(x) for x in seats),
        alike and int(seats.min()) == int(seats.max()),
        0.05 if alike else 0.1,
    )


def poisson(
    rng: np.random.Generator,
    count: int,
    costs: Floats,
    shares: Floats,
    speed: Floats,
    seats: Floats | Ints | None = None,
    load: float = 0.85,
    switch: float = 0.0,
) -> Arrivals:
    """Poisson requests of some kinds.

    Args:
        rng: draws them. count: how many. costs, shares: of each kind. speed, seats: of each server. load: of capacity.
        switch: seconds in which a server loads another one of two models, over the mean service; 0: there is one.
    """
    kind = rng.choice(len(shares), count, p=shares)
    capacity = float((speed * (1 if seats is None else seats)).sum())
    arrival = np.cumsum(rng.exponential(float(costs @ shares) / (load * capacity), count))
    cost = costs[kind]
    model = (rng.random(count) < 0.3).astype(np.int64) if switch else np.zeros(count, np.int64)
    load_s = np.full(len(speed), switch * float(costs @ shares))
    return Arrivals(arrival, cost[:, None] / speed, cost=cost, kind=kind, model=model, switch_s=load_s)


def known_fleets(rng: np.random.Generator, count: int) -> list[Played]:
    """Three equal servers at a load of .86, and speeds 2, 1, .5, .5 at .85. Args: rng: draws. count: requests."""
    costs = COSTS / COSTS[-1] * 19.7
    fleets = ((np.ones(3), 0.86, 0.05), (np.array([2.0, 1.0, 0.5, 0.5]), 0.85, 0.1))
    return [
        Played(poisson(rng, count, costs, SHARES, speed, load=load), (1,) * len(speed), room == 0.05, room)
        for speed, load, room in fleets
    ]
