"""Random fleets, and a player of whole episodes on them, which needs numba: what `train` trains on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tensordict import TensorDict

from diffpolicy.diffusion.samplers import reverse_steps
from diffpolicy.diffusion.schedules import NoiseSchedule
from diffpolicy.edge.pricing.law import FEATURES, LATENTS
from diffpolicy.edge.scenario import released
from diffpolicy.errors import InputError

Floats = npt.NDArray[np.float64]
OUTLOOK, LEAST_OUTLOOK = 0.5, 10
"""A label of slot t counts what follows until slot t + OUTLOOK t + LEAST_OUTLOOK."""


@dataclass(frozen=True)
class Recipe:
    """How one of the bundled rules is trained.

    Args:
        information: `live` or `stale`, under which evolution plays.
        steps: denoising steps, forward passes of the network for one price.
        remember: whether the chain starts from the server's remembered x_0; otherwise from zero.
        rounds: of price iteration. generations: of evolution. pairs: of a generation.
        servers, slots: least and greatest of the fleets and episodes of evolution, both drawn log-uniformly.
        long, dispatched: of evolution, see `RandomFleet.draw`.
        horizons: evolution counts an episode of T slots as up to so many, of T, T/2, T/4, ... slots.
        least_load: of all fleets; below it they are drawn again.
    """

    information: str
    steps: int
    remember: bool
    rounds: int = 8
    generations: int = 380
    pairs: int = 64
    servers: tuple[int, int] = (4, 14)
    slots: tuple[int, int] = (16, 150)
    long: tuple[float, int] = (0.25, 600)
    dispatched: tuple[float, int, int] | None = (0.15, 200, 800)
    horizons: int = 3
    least_load: float = 0.0


def possible(kinds: int) -> Floats:
    """Chances that a station has a task of each index in a slot, whose number is uniform from 1 to `kinds`, `[N]`."""
    return np.minimum(1, (kinds - np.arange(kinds)) / kinds)


@dataclass(frozen=True)
class RandomFleet:
    """A random problem.

    Args:
        capacity, rate: of the servers. work, result: of tasks by index. slots: T.
        slot_s: mean length of a slot, seconds.
        dispatched: whether single requests of random indices come to a dispatcher, at exponential distances, instead of
            slots of tasks to a station beside each server.
    """

    capacity: Floats
    rate: Floats
    work: Floats
    result: Floats
    slots: int
    slot_s: float = 1.0
    dispatched: bool = False

    @property
    def load(self) -> float:
        """Work that comes in a slot over what the servers can do in it."""
        n = len(self.work)
        mean = self.work.mean() if self.dispatched else len(self.capacity) * (possible(n) * self.work).sum()
        return float(mean / (self.capacity.sum() * self.slot_s))

    @staticmethod
    def draw(
        rng: np.random.Generator,
        slots: tuple[int, int],
        servers: tuple[int, int],
        long: tuple[float, int] = (0.0, 0),
        dispatched: tuple[float, int, int] | None = None,
        least_load: float = 0.0,
    ) -> RandomFleet:
        """A fleet of `drawn` whose load is at least so much. Args: least_load: see `Recipe`. Others: of `drawn`."""
        while True:
            fleet = RandomFleet.drawn(rng, slots, servers, long, dispatched)
            if fleet.load >= least_load:
                return fleet

    @staticmethod
    def drawn(
        rng: np.random.Generator,
        slots: tuple[int, int],
        servers: tuple[int, int],
        long: tuple[float, int],
        dispatched: tuple[float, int, int] | None,
    ) -> RandomFleet:
        """Servers and slots log-uniform, up to 8..75 tasks a station and slot, capacities of one of four ranges.

        Args:
            rng: owned by the caller. slots, servers: least and greatest.
            long: share of episodes of `slots[1]` to `long[1]` slots instead, on fleets of at most the middle size.
            dispatched: share of problems with a dispatcher, and their least and greatest number of requests; loads of
                0.3 to 1.2. None: no problem, and nothing is drawn for it.
        """
        single = dispatched is not None and rng.random() < dispatched[0]
        if rng.random() < long[0]:
            slots, servers = (slots[1], long[1]), (servers[0], (servers[0] + servers[1]) // 2)

        def log_uniform(lo: int, hi: int) -> int:
            return round(math.exp(rng.uniform(math.log(lo), math.log(hi))))

        s, n = log_uniform(*servers), int(rng.integers(8, 76))
        lo, hi = [(10, 50), (10, 50), (10, 20), (20, 40), (5, 60)][rng.integers(5)]
        if rng.random() < 0.3:  # the released tables, whose work and results go together
            law = released.workload(n)
            work = np.array(law.gcycles_per_step) * np.array(law.steps)
            result = np.array(law.result_mbit)
        else:
            work = rng.uniform(0.1024, 0.3072, n) * rng.integers(1, 15, n)
            result = rng.uniform(0.6, 1.0, n)
        capacity = rng.integers(lo, hi, s, endpoint=True).astype(np.float64)
        rate = rng.integers(400, 500, s, endpoint=True).astype(np.float64)
        if single and dispatched is not None:
            slot_s = work[:n].mean() / capacity.sum() / rng.uniform(0.3, 1.2)
            return RandomFleet(capacity, rate, work[:n], result[:n], log_uniform(*dispatched[1:]), slot_s, True)
        return RandomFleet(capacity, rate, work[:n], result[:n], log_uniform(*slots))


@dataclass(frozen=True)
class Arrivals:
    """What comes in an episode. Args: as `episode.play` takes them; without first and gaps, the law of LAD-TS."""

    counts: npt.NDArray[np.int64]
    inputs: Floats
    first: npt.NDArray[np.int64] | None = None
    gaps: Floats | None = None

    @staticmethod
    def draw(fleet: RandomFleet, seed: int) -> Arrivals:
        """An episode of a fleet."""
        rng = np.random.Generator(np.random.PCG64(seed))
        n = len(fleet.work)
        if fleet.dispatched:
            shape = (fleet.slots, 1)
            gaps = rng.exponential(fleet.slot_s, fleet.slots)
            inputs = rng.uniform(2.0, 5.0, (2, *shape, 1))
            return Arrivals(np.ones(shape, np.int64), inputs, rng.integers(0, n, shape), gaps)
        shape = (fleet.slots, len(fleet.capacity))
        return Arrivals(rng.integers(1, n, shape, endpoint=True), rng.uniform(2.0, 5.0, (2, *shape, n)))


class Player:
    """Plays the compiled episodes of a recipe."""

    def __init__(self, recipe: Recipe, hidden: int) -> None:
        if hidden % 4:
            raise InputError(f"the compiled player needs a hidden width that is a multiple of 4, got {hidden}")
        try:
            from diffpolicy.edge.pricing.training import episode
        except ModuleNotFoundError:
            raise InputError("training over fleets needs numba: pip install -c constraints.txt '.[fleet]'") from None
        self.sim, self.recipe, self.hidden = episode, recipe, hidden
        steps = reverse_steps(NoiseSchedule.named("vp", recipe.steps), None, 0.0, "x0")
        self.path = np.array([[step.i - 1, step.keep, step.push] for step in steps])

    def network(self, theta: Floats) -> Any:
        """A `SetDenoiser` of flat parameters, as the compiled form takes it."""
        widths = (FEATURES, LATENTS, self.recipe.steps)
        hidden = self.hidden
        parts = np.split(theta, np.cumsum([*(w * hidden for w in widths), hidden * LATENTS]))
        of_condition, of_x, of_step = (part.reshape(w, hidden) for part, w in zip(parts, widths, strict=False))
        out = parts[3].reshape(hidden, LATENTS).T
        return self.sim.networks([(of_condition, of_x, of_step, out, parts[4])], [self.path], self.recipe.remember)

    def play(
        self,
        theta: Floats,
        fleet: RandomFleet,
        seed: int,
        mode: int | None = None,
        records: Floats | None = None,
        stride: int = 1,
    ) -> tuple[float, int]:
        """Mean delay in seconds of an episode that a seed draws, and how many records it left."""
        drawn = np.arange(len(fleet.capacity))  # at random, so as good an order as any
        arrivals = Arrivals.draw(fleet, seed)
        total, number, kept = self.play_arrivals(theta, fleet, arrivals, mode, records, stride, order=drawn)
        return total / number, kept

    def until(self, theta: Floats, fleet: RandomFleet, seed: int, mode: int | None = None) -> Floats:
        """Sum of the delays of an episode's tasks up to each slot, seconds `[T]`."""
        sums = np.zeros(fleet.slots)
        arrivals, order = Arrivals.draw(fleet, seed), np.arange(len(fleet.capacity))
        self.play_arrivals(theta, fleet, arrivals, mode, order=order, until=sums)
        return sums

    def outcome(self, theta: Floats, fleet: RandomFleet, seed: int, mode: int | None = None) -> TensorDict:
        """What `team_objectives` reads of the episode that a seed draws: its K tasks in order of arrival."""
        arrivals, n = Arrivals.draw(fleet, seed), len(fleet.work)
        here = np.arange(len(fleet.capacity))
        delays = np.zeros(int(arrivals.counts.sum()))
        self.play_arrivals(theta, fleet, arrivals, mode, delays=delays, order=here)
        slot, station, i = np.nonzero(np.arange(n) < arrivals.counts[..., None])
        kind = i if arrivals.first is None else (arrivals.first[slot, station] + i) % n
        away = (station[:, None] != here) | fleet.dispatched
        way = fleet.result[kind, None] + arrivals.inputs[0][slot, station, i, None] * away
        alone = (fleet.work[kind, None] / fleet.capacity + way / fleet.rate).min(-1)
        values = {"delay_s": delays[:, None], "work_gcycles": fleet.work[kind], "unloaded_s": alone}
        tensors = {name: torch.from_numpy(x) for name, x in values.items()}
        return TensorDict(tensors | {"weight": torch.ones_like(tensors["delay_s"])})

    def play_arrivals(
        self,
        theta: Any,
        fleet: RandomFleet,
        arrivals: Arrivals,
        mode: int | None = None,
        records: Floats | None = None,
        stride: int = 1,
        delays: Floats | None = None,
        order: npt.NDArray[np.int64] | None = None,
        until: Floats | None = None,
    ) -> tuple[float, int, int]:
        """Sum of delays, number of tasks and number of records of an episode of given arrivals.

        Args:
            theta: parameters, flat, or a `compiled.Network`.
            fleet: the servers, one station each, and the tables by index.
            arrivals: see there. records, stride, delays, until: of `episode.play`.
            order: in which prices are renewed; None: by capacity, as `FleetRule` does.
            mode: of `episode`; by default the recipe's.
        """
        servers, n = len(fleet.capacity), len(fleet.work)
        counts, first, gaps = arrivals.counts, arrivals.first, arrivals.gaps
        chance = np.full(n, 1 / n) if fleet.dispatched else possible(n)
        if mode is None:
            alone = fleet.dispatched or self.recipe.information == "live"
            mode = self.sim.LIVE if alone else self.sim.STALE
        sim = self.sim
        rank = 2 * ((fleet.capacity < fleet.capacity[:, None]).sum(1) + 0.5) / servers - 1
        home = np.array([-1]) if fleet.dispatched else np.arange(servers)
        by_capacity = np.lexsort((fleet.rate, fleet.capacity)) if order is None else order
        problem = sim.Problem(fleet.capacity, fleet.rate, rank, home, by_capacity, fleet.work, fleet.result, chance)
        coming = sim.Coming(
            counts,
            arrivals.inputs,
            np.zeros_like(counts) if first is None else first,
            np.full(len(counts), fleet.slot_s) if gaps is None else gaps,
            fleet.slot_s,
        )
        noted = sim.Noted(
            np.zeros((0, FEATURES + LATENTS + 1)) if records is None else records,
            stride,
            OUTLOOK,
            LEAST_OUTLOOK,
            np.zeros(0) if delays is None else delays,
            np.zeros(0) if until is None else until,
        )
        network = theta if isinstance(theta, sim.Network) else self.network(theta)
        return sim.play(network, mode, problem, coming, noted)  # type: ignore[no-any-return]
