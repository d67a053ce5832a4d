"""Trains what decides for any fleet: price iteration, then evolution, over random fleets, loads and horizons.

`diffpolicy train-fleet live --out DIR` makes `pretrained:live` again; see `RECIPES` for the others.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils import parameters_to_vector

from diffpolicy.diffusion.samplers import reverse_steps
from diffpolicy.diffusion.schedules import NoiseSchedule
from diffpolicy.edge import released
from diffpolicy.edge.fleet_features import BIAS, FEATURES, LATENTS, SCALE
from diffpolicy.errors import InputError
from diffpolicy.networks.set_denoiser import SetDenoiser
from diffpolicy.training.evolution import EvolutionModule
from diffpolicy.training.imitation import ImitationModule

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
        long: of evolution, see `Fleet.draw`.
    """

    information: str
    steps: int
    remember: bool
    rounds: int = 8
    generations: int = 230
    pairs: int = 64
    servers: tuple[int, int] = (4, 14)
    slots: tuple[int, int] = (16, 150)
    long: tuple[float, int] = (0.12, 600)


RECIPES = {
    "price": Recipe("live", 1, False, generations=360),
    "live": Recipe("live", 2, True, generations=270),
    "live-one-pass": Recipe("live", 1, True, generations=350),
    "stale": Recipe("stale", 2, True, generations=200, pairs=48),
    "stale-one-pass": Recipe("stale", 1, True, generations=260, pairs=48),
}
"""By name, `price` being the heuristic and `*-one-pass` the controls."""


@dataclass(frozen=True)
class Fleet:
    """A random problem. Args: as `fleet_sim.play` takes them; slots: T."""

    capacity: Floats
    rate: Floats
    work: Floats
    result: Floats
    slots: int

    @staticmethod
    def draw(
        rng: np.random.Generator, slots: tuple[int, int], servers: tuple[int, int], long: tuple[float, int] = (0.0, 0)
    ) -> Fleet:
        """Servers and slots log-uniform, up to 8..75 tasks a station and slot, capacities of one of four ranges.

        Args:
            rng: owned by the caller. slots, servers: least and greatest.
            long: share of episodes of `slots[1]` to `long[1]` slots instead, on fleets of at most the middle size.
        """
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
        return Fleet(capacity, rate, work[:n], result[:n], log_uniform(*slots))


class Player:
    """Plays the compiled episodes of a recipe."""

    def __init__(self, recipe: Recipe, hidden: int) -> None:
        try:
            from diffpolicy.edge import fleet_sim
        except ModuleNotFoundError:
            raise InputError("training over fleets needs numba; install diffpolicy[fleet]") from None
        self.sim, self.recipe, self.hidden = fleet_sim, recipe, hidden
        steps = reverse_steps(NoiseSchedule.named("vp", recipe.steps), None, 0.0, "x0")
        self.path = np.array([[step.keep, step.push] for step in steps])

    def play(
        self,
        theta: Floats,
        fleet: Fleet,
        seed: int,
        mode: int | None = None,
        records: Floats | None = None,
        stride: int = 1,
    ) -> tuple[float, int]:
        """Mean delay in seconds of an episode that a seed draws, and how many records it left."""
        rng = np.random.Generator(np.random.PCG64(seed))
        servers, n = len(fleet.capacity), len(fleet.work)
        shape = (fleet.slots, servers)
        counts = rng.integers(1, n, shape, endpoint=True)
        inputs = rng.uniform(2.0, 5.0, (2, *shape, n))
        drawn = np.arange(servers)  # at random, so as good an order as any
        total, number, kept = self.play_arrivals(theta, fleet, counts, inputs, mode, records, stride, order=drawn)
        return total / number, kept

    def play_arrivals(
        self,
        theta: Floats,
        fleet: Fleet,
        counts: npt.NDArray[np.int64],
        inputs: Floats,
        mode: int | None = None,
        records: Floats | None = None,
        stride: int = 1,
        delays: Floats | None = None,
        order: npt.NDArray[np.int64] | None = None,
    ) -> tuple[float, int, int]:
        """Sum of delays, number of tasks and number of records of an episode of given arrivals.

        Args:
            theta: parameters, flat. fleet: the servers, one station each, and the tables by index.
            counts, inputs, records, stride, delays: of `fleet_sim.play`.
            order: in which prices are renewed; None: by capacity, as `FleetRule` does.
            mode: of `fleet_sim`; by default the recipe's.
        """
        servers, n = len(fleet.capacity), len(fleet.work)
        chance = np.minimum(1, (n - np.arange(n)) / n)
        if mode is None:
            mode = self.sim.LIVE if self.recipe.information == "live" else self.sim.STALE
        return self.sim.play(  # type: ignore[no-any-return]
            theta,
            self.hidden,
            self.path,
            self.recipe.remember,
            mode,
            fleet.capacity,
            fleet.rate,
            np.arange(servers),
            2 * ((fleet.capacity < fleet.capacity[:, None]).sum(1) + 0.5) / servers - 1,
            np.lexsort((fleet.rate, fleet.capacity)) if order is None else order,
            fleet.work,
            fleet.result,
            chance,
            counts,
            inputs,
            1.0,
            np.zeros((0, FEATURES + LATENTS + 1)) if records is None else records,
            stride,
            OUTLOOK,
            LEAST_OUTLOOK,
            np.zeros(0) if delays is None else delays,
        )


def train_rule(recipe: Recipe, *, hidden: int = 32, seed: int = 0, report: Any = None) -> SetDenoiser:
    """The network of a recipe, trained from nothing.

    Price iteration regresses each server's price, with a logarithmic loss, on the number of later tasks of its busy
    period until half as many slots again have passed as had (at least 10): an outlook that grows with what was seen
    and knows no horizon. Evolution then lowers the mean logarithm of the ratio to Opt-TS on the same arrivals.

    Args:
        recipe: see `RECIPES`. hidden: width of the network. seed: of everything. report: takes lines of progress.
    """
    generator = torch.Generator().manual_seed(seed)
    network = SetDenoiser(LATENTS, FEATURES, recipe.steps, hidden=hidden, generator=generator).double()
    player = Player(recipe, hidden)
    report = report or (lambda line: None)
    # price iteration: the last step alone, from zero, learns the price; the chain's other steps start as copies of it
    first = Recipe("live", 1, False)
    teacher = SetDenoiser(LATENTS, FEATURES, 1, hidden=hidden).double()
    with torch.no_grad():
        for name in ("of_condition", "of_x", "out", "out_bias"):
            getattr(teacher, name).copy_(getattr(network, name))
    of_teacher = Player(first, hidden)

    def collect(number: int) -> tuple[Tensor, ...]:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 2, number))))
        theta, rows = _flat(teacher), []
        for _ in range(24):
            fleet = Fleet.draw(rng, (50, 200), (4, 30))
            records = np.zeros((4000, FEATURES + LATENTS + 1))
            expected = fleet.slots * len(fleet.capacity) * len(fleet.work) / 2
            play_seed = int(rng.integers(2**31))
            kept = of_teacher.play(theta, fleet, play_seed, records=records, stride=max(1, int(expected / 2500)))[1]
            rows.append(torch.from_numpy(records[:kept].copy()))
        both = torch.cat(rows)
        return both[:, :FEATURES], both[:, FEATURES:-1], both[:, -1]

    def loss(features: Tensor, terms: Tensor, label: Tensor) -> Tensor:
        x0 = teacher(features.new_zeros(len(features), LATENTS), 1, teacher.prepare(features))
        price = (softplus(SCALE * x0 + torch.tensor(BIAS, dtype=x0.dtype)) * terms).sum(-1)
        return (price.log1p() - label.log1p()).square().mean()

    started = time.perf_counter()
    imitation = ImitationModule(teacher, collect, loss, rounds=recipe.rounds, seed=seed)
    _run(imitation)
    last = imitation.history[-1]["loss"]
    report(f"price iteration: {recipe.rounds} rounds, loss {last:.3f}, {time.perf_counter() - started:.0f} s")
    with torch.no_grad():
        for name in ("of_condition", "of_x", "out", "out_bias"):
            getattr(network, name).copy_(getattr(teacher, name))
        network.of_step.copy_(teacher.of_step.expand_as(network.of_step))
        if recipe.remember:
            network.of_x.mul_(0.3)

    def cost(thetas: Floats, generation: int) -> Floats:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 3, generation))))
        costs = np.zeros(thetas.shape[:2])
        for p in range(thetas.shape[1]):
            fleet, episode = Fleet.draw(rng, recipe.slots, recipe.servers, recipe.long), int(rng.integers(2**31))
            greedy = player.play(thetas[0, p], fleet, episode, player.sim.GREEDY)[0]
            for sign in (0, 1):
                costs[sign, p] = math.log(player.play(thetas[sign, p], fleet, episode)[0] / greedy)
        if generation % 20 == 0:
            report(f"generation {generation}: {math.exp(costs.mean()):.3f}, {time.perf_counter() - started:.0f} s")
        return costs

    _run(EvolutionModule(network, cost, generations=recipe.generations, pairs=recipe.pairs, seed=seed))
    report(f"done in {time.perf_counter() - started:.0f} s")
    return network


def _flat(network: nn.Module) -> Floats:
    return parameters_to_vector(network.parameters()).detach().double().numpy()


def _run(module: L.LightningModule) -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module)
