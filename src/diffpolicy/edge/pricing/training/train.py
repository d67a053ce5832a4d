"""Trains what decides for any fleet: price iteration, then evolution, over random fleets, loads and horizons.

`diffpolicy train-fleet live --out DIR` makes `pretrained:live` again; see `RECIPES` for the others.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from diffpolicy._identity import check_same, describe
from diffpolicy._signals import Stopped
from diffpolicy.edge.credit.objectives import Objective
from diffpolicy.edge.pricing import law
from diffpolicy.edge.pricing.law import FEATURES, LATENTS
from diffpolicy.edge.pricing.training.player import Floats, Player, RandomFleet, Recipe
from diffpolicy.errors import InputError
from diffpolicy.networks.set_denoiser import SetDenoiser
from diffpolicy.training import checkpoint
from diffpolicy.training.evolution import EvolutionModule
from diffpolicy.training.fit import fit
from diffpolicy.training.imitation import ImitationModule
from diffpolicy.training.trainable import Trainable, described

STALE: dict[str, Any] = {"pairs": 48, "long": (0.2, 600), "dispatched": (0.1, 200, 800)}
"""Behind a dispatcher nothing is stale, and a stale policy decides as a live one."""
LONG: dict[str, Any] = {
    "generations": 100,
    "pairs": 32,
    "slots": (200, 600),
    "long": (0.0, 0),
    "dispatched": None,
    "horizons": 1,
    "least_load": 1.05,
}
"""Overload alone, and episodes that count whole: what a backlog of many slots asks for."""
RECIPES = {
    "price": Recipe("live", 1, False, generations=460),
    "live": Recipe("live", 2, True, generations=380),
    "live-one-pass": Recipe("live", 1, True, generations=460),
    "stale": Recipe("stale", 2, True, generations=300, **STALE),
    "stale-one-pass": Recipe("stale", 1, True, generations=360, **STALE),
    "live-gated": Recipe("live", 1, True, **LONG),
    "stale-gated": Recipe("live", 1, True, **LONG),
}
"""By name: `price` is the heuristic, `*-one-pass` are the controls, and `*-gated` is the set of parameters for long
overload of a policy that has those of two bundled ones beside it, see `policy.bundle`."""


LEAST_HORIZON = 20
"""Slots of the shortest part of an episode that counts as one."""
FLEETS = 24
"""Random fleets on which prices are looked at in a round of price iteration."""


def train_rule(
    recipe: Recipe,
    *,
    hidden: int = 32,
    seed: int = 0,
    objective: Objective | None = None,
    report: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
) -> SetDenoiser:
    """The network of a recipe, trained from nothing.

    Price iteration regresses each server's price, with a logarithmic loss, on the number of later tasks of its busy
    period until half as many slots again have passed as had (at least 10): an outlook that grows with what was seen
    and knows no horizon. Evolution then lowers the mean logarithm of the ratio to Opt-TS on the same arrivals, over an
    episode and its beginnings: since nothing is known of the end, each of them might have been all.

    Args:
        recipe: see `RECIPES`. hidden: width of the network. seed: of everything. report: takes lines of progress.
        objective: of which evolution takes the ratio, a thousandth added to both sides; None: the mean delay. Price
            iteration always learns the prices of the mean delay.
        out: folder for `checkpoint.ckpt`, after each round and generation, and `training.csv`; None: none is written.
        resume: whether to go on from the checkpoint in `out`; what comes of it is the same, bit for bit.

    Raises:
        InputError: `out` holds another run, or with `resume` none, or is being written by another process.
        Stopped: SIGINT or SIGTERM ended it after the round or generation at hand, whose checkpoint is written.
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
        for _ in range(FLEETS):
            fleet = RandomFleet.draw(
                rng, (50, 200), (4, 30), (0.0, 0), (0.0, 0, 0), recipe.least_load
            )  # no dispatchers here
            records = np.zeros((4000, FEATURES + LATENTS + 1))
            expected = fleet.slots * len(fleet.capacity) * len(fleet.work) / 2
            play_seed = int(rng.integers(2**31))
            kept = of_teacher.play(theta, fleet, play_seed, records=records, stride=max(1, int(expected / 2500)))[1]
            rows.append(torch.from_numpy(records[:kept].copy()))
        both = torch.cat(rows)
        return both[:, :FEATURES], both[:, FEATURES:-1], both[:, -1]

    def loss(features: Tensor, counts: Tensor, label: Tensor) -> Tensor:
        x0 = teacher(features.new_zeros(len(features), LATENTS), 1, teacher.prepare(features))
        price = (law.coefficients(x0) * counts).sum(-1)
        return (price.log1p() - label.log1p()).square().mean()

    started = time.perf_counter()
    common = {"recipe": recipe, "hidden": hidden, "seed": seed, "objective": described(objective)}
    parts = [describe({"part": part, **common}) for part in ("price iteration", "evolution")]
    folder = None if out is None else Path(out)
    last = {} if folder is None else _checked_folder(folder, resume, parts)
    if "evolution" not in last:
        imitation = ImitationModule(teacher, collect, loss, rounds=recipe.rounds, seed=seed)
        imitation.identity = parts[0]
        _run(imitation, folder, last.get("price iteration"))
        final = imitation.history[-1]["loss"]
        report(f"price iteration: {recipe.rounds} rounds, loss {final:.3f}, {time.perf_counter() - started:.0f} s")
    with torch.no_grad():
        for name in ("of_condition", "of_x", "out", "out_bias"):
            getattr(network, name).copy_(getattr(teacher, name))
        network.of_step.copy_(teacher.of_step.expand_as(network.of_step))
        if recipe.remember:
            network.of_x.mul_(0.3)

    def worth(theta: Floats, fleet: RandomFleet, episode: int, mode: int | None = None) -> Floats:
        if objective is None:
            return player.until(theta, fleet, episode, mode)[horizons(fleet, recipe.horizons)]
        return np.array([1e-3 + float(objective(player.outcome(theta, fleet, episode, mode)))])

    def cost(thetas: Floats, generation: int) -> Floats:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 3, generation))))
        costs = np.zeros(thetas.shape[:2])
        for p in range(thetas.shape[1]):
            fleet = RandomFleet.draw(
                rng, recipe.slots, recipe.servers, recipe.long, recipe.dispatched, recipe.least_load
            )
            episode = int(rng.integers(2**31))
            greedy = worth(thetas[0, p], fleet, episode, player.sim.GREEDY)
            for sign in (0, 1):
                costs[sign, p] = np.log(worth(thetas[sign, p], fleet, episode) / greedy).mean()
        if generation % 20 == 0:
            report(f"generation {generation}: {math.exp(costs.mean()):.3f}, {time.perf_counter() - started:.0f} s")
        return costs

    evolution = EvolutionModule(network, cost, generations=recipe.generations, pairs=recipe.pairs, seed=seed)
    evolution.identity = parts[1]
    _run(evolution, folder, last.get("evolution"))
    report(f"done in {time.perf_counter() - started:.0f} s")
    return network


def horizons(fleet: RandomFleet, most: int) -> list[int]:
    """Last slots of the episodes as which one counts: all of it, its first half, and so on; a dispatcher's is one."""
    slots = [fleet.slots]
    while not fleet.dispatched and len(slots) < most and slots[-1] // 2 >= LEAST_HORIZON:
        slots.append(slots[-1] // 2)
    return [t - 1 for t in slots]


def _flat(network: nn.Module) -> Floats:
    return parameters_to_vector(network.parameters()).detach().double().numpy()


def _run(module: Trainable, out: Path | None, resume: Path | None) -> None:
    """Trains a part, with a checkpoint after each of its passes.

    Raises:
        Stopped: a signal asked for it; the checkpoint is written.
    """
    fitted = fit(module, out=out, resume=resume, overwrite=True, checkpoint_every=1)
    if fitted.signal is not None:
        raise Stopped(fitted.signal)


def _checked_folder(out: Path, resume: bool, parts: list[dict[str, Any]]) -> dict[str, Path]:
    """From which checkpoint each part goes on, by its name; at most one of them does.

    Args:
        out: the folder. resume: whether to go on with what it holds. parts: what is trained, in order, as described.

    Raises:
        InputError: the folder holds something else than is to be resumed, or anything though nothing is.
    """
    path = out / "checkpoint.ckpt"
    if not resume:
        checkpoint.check_folder(out, None, {})
        return {}
    if not path.is_file():
        raise InputError(f"the output folder {out} has no checkpoint.ckpt to resume")
    saved = checkpoint.read(path)["run"]["identity"]
    part = saved.get("part") if isinstance(saved, dict) else None
    mine = next((each for each in parts if each["part"] == part), parts[0])
    check_same(saved, mine, f"checkpoint {path} cannot be resumed: it")
    return {mine["part"]: path}
