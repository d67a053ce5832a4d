"""Diffusion policies on the worked problems, each held to its aim: five seeds or draws, beside rules and controls.

python benchmarks/problems.py --seeds 5 --jobs 16 --minutes 5 --csv docs/_static/problems.csv
python benchmarks/problems.py --seeds 1 --jobs 2 --minutes 2 --only split --csv runs/problems.csv

Every training runs in a process of one thread, for as many seconds of processor time as the budget lets all of them,
which others on the machine do not take away; what it reached then is judged on the same episodes as the rules. The file
has a row a problem, method and seed, written as it comes. What is in it already is not trained again, and what is
missing then gets as many seconds as those had; a control, as many episodes as the method beside it had on that seed, so
that both may come from unlike machines. Beside it, with `_table` in its name, lies the table that is printed. A problem
or a method is added by a line in `PROBLEMS`.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor
from torchrl.envs.utils import set_exploration_type

from diffpolicy.experiments import evaluate, make_problem, train
from diffpolicy.objectives.pathwise import PathwiseLoss
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.direct import FeedforwardPolicy
from diffpolicy.policies.heads import SimplexHead
from diffpolicy.problems.gang import FIELDS, QUEUE, SCALE_S, STEPS, duration_s, quality
from diffpolicy.problems.split import SplitRollout, soft_delay
from diffpolicy.training import PathwiseModule, fit
from ending import EndsAfter
from jobs import Job, part_given, run_jobs
from judging import judged_by
from timing import machine, table, write_csv

COLUMNS = (
    "problem",
    "method",
    "seed",
    "trained episodes",
    "seconds",
    "cost",
    "score",
    "measure",
    "beside",
    "note",
    "given",
)
GIVEN = COLUMNS.index("given")
"""Seconds that a training was given, which older files do not tell."""
SUMMARY = ("problem", "method", "seeds", "cost", "score", "what is aimed at", "mean", "standard error", "aim", "holds")
EPISODES_SEED = 10_000
"""Of the episodes on which all are judged; training has streams of its own."""
NO_END = 10**6


@dataclass(frozen=True)
class Way:
    """How a policy comes about.

    Args:
        make: given the problem, a seed, seconds, and episodes after which it ends too or None, a policy and how many
            episodes it was trained for.
        seconds: of training on one thread.
        control_of: the method without whose chain it is, if it is a control.
    """

    make: Callable[[Any, int, float, int | None], tuple[Any, int]]
    seconds: float = 180.0
    control_of: str | None = None


@dataclass(frozen=True)
class Aim:
    """What is asked of a problem's policies.

    Args:
        says: the measure, in words. of: it, from mean costs by policy, ours under its own name `ours`.
        most: the greatest mean over seeds. errors: standard errors over seeds that are added to it first.
        also: a rule whose cost ours must stay below, in the mean.
    """

    says: str
    of: Callable[[Mapping[str, float]], float]
    most: float
    errors: float = 0.0
    also: str | None = None


@dataclass(frozen=True)
class Entry:
    """A problem of the table.

    Args:
        make: gives it, of a seed: where a seed is a draw of the problem, another one.
        ways: by the names of methods. aim: see there. worst, best: rules that have the scores 0 and 1.
        rules: more of them, printed beside. episodes: on which policies are judged. note: of a policy, for the file.
    """

    make: Callable[[int], Any]
    ways: Mapping[str, Way]
    aim: Aim
    worst: str
    best: str
    rules: tuple[str, ...] = ()
    episodes: int = 64
    note: Callable[[Any, Any], str] = field(default=lambda problem, policy: "")


def by_presets(environments: int, changes: Mapping[str, Any], seconds: float = 180.0) -> dict[str, Way]:
    """`d2sac` and its control, trained until their time is over. Args: environments, changes: of `train`."""
    return {
        preset: Way(partial(_by_preset, preset, environments, dict(changes)), seconds, control)
        for preset, control in (("d2sac", None), ("sac", "d2sac"))
    }


def _by_preset(
    preset: str,
    environments: int,
    changes: dict[str, Any],
    problem: Any,
    seed: int,
    seconds: float,
    episodes: int | None,
) -> tuple[Any, int]:
    fitted = train(
        problem,
        preset,
        episodes=episodes or NO_END,
        callbacks=[] if episodes else [EndsAfter(seconds)],
        environments=environments,
        seed=seed,
        changes=changes,
    )
    return fitted.policy, fitted.episodes


# split: its delay is differentiable in the shares


class Softened:
    """The mean soft delay, whose softness falls from 0.5 s to 0.01 s over the updates. Args: updates: of training."""

    def __init__(self, updates: int) -> None:
        self.updates, self.now = updates, 0

    def __call__(self, played: Any) -> Tensor:
        softness_s = 0.5 * (0.01 / 0.5) ** min(1.0, self.now / self.updates)
        self.now += 1
        return soft_delay(played["end_s"], softness_s).mean()


LANES = 8
"""Episodes of an update, of 33 decisions each."""


def pathwise(
    problem: Any, seed: int, seconds: float, episodes: int | None = None, *, chain: bool = True
) -> tuple[Any, int]:
    """A chain that ends in shares, by the gradient of the delay itself, as `examples/problems/split.py` has it.

    Args:
        problem, seed, seconds, episodes: of `Way`.
        chain: false for the control, whose shares come of one pass of its network.
    """

    def module(updates: int) -> Any:
        env = problem.make_env(LANES, seed)
        network, head = {"hidden": [128, 128], "act": "mish"}, SimplexHead(draw="argmax")
        policy: Any = FeedforwardPolicy.from_specs(env, head=head, seed=seed, **network)
        if chain:
            policy = DiffusionPolicy.from_specs(
                env, steps=3, prediction="x0", sampler="ddim", head=head, denoiser=network, seed=seed
            )
        loss = PathwiseLoss(policy, Softened(updates))
        return PathwiseModule(policy, loss, SplitRollout(env), learning_rates={"actor": 4e-3}, anneal=updates)

    if episodes:
        made = module(episodes // LANES)
        return made.policy, fit(made, episodes=episodes).episodes
    start, few = time.process_time(), 100
    fit(module(few), episodes=20 * LANES)  # the first updates of a process are slow
    begun = time.process_time()
    fit(module(few), episodes=few * LANES)  # what an update takes here, since rates fall over all of them
    each, left = (time.process_time() - begun) / few, seconds - (time.process_time() - start)
    updates = max(few, int(left / each))
    made = module(updates)
    fitted = fit(made, episodes=updates * LANES, callbacks=[EndsAfter(max(left, 1.0))])
    return made.policy, fitted.episodes


# gang: quality beside latency


def of_gang(problem: Any, policy: Any) -> str:
    """Mean quality of images and mean seconds from arrival to image. Args: policy: any, deciding without chance."""
    env = problem.make_episodes(0, 64, EPISODES_SEED)
    servers, td = problem.options["servers"], env.reset()
    of_quality, of_latency, count = 0.0, 0.0, 0
    going = torch.ones(64, dtype=torch.bool)
    with torch.no_grad():
        for _ in range(problem.steps):
            td = policy(td)
            place, steps = td["action"][:, 0], torch.tensor(STEPS, dtype=torch.float)[td["action"][:, 1]]
            tasks = td["observation"][:, : FIELDS * QUEUE].unflatten(-1, (QUEUE, FIELDS))
            chosen = tasks[torch.arange(64), place.clamp_max(QUEUE - 1)]
            launch = going & (place < QUEUE)
            takes = duration_s((chosen[:, 2] * servers).round(), steps, chosen[:, 4] > 0)
            of_quality += float(quality(steps)[launch].sum())
            of_latency += float((chosen[:, 1] * SCALE_S + takes)[launch].sum())
            count += int(launch.sum())
            td = env.step(td)["next"]
            going &= ~td["done"].squeeze(-1)
            if not going.any():
                break
    return f"quality {of_quality / count:.3f}; {of_latency / count:.1f} s to the image"


# fdedge: the policies for any fleet


def bundled(name: str, problem: Any, seed: int, seconds: float, episodes: int | None) -> tuple[Any, int]:
    """One that comes with the package, trained on random fleets and never on this one."""
    from diffpolicy.edge.pricing.bundled import load_bundled

    return load_bundled(name), 0


def fdedge(seed: int) -> Any:
    """FDEdge's single master."""
    from diffpolicy.edge import OffloadingProblem, Scenario

    return OffloadingProblem(Scenario.load("fdedge"))


def providers(seed: int) -> Any:
    """The providers of one draw."""
    from diffpolicy.problems import ProviderSelection

    return ProviderSelection(seed)


def _named(name: str, seed: int) -> Any:
    return make_problem(name)


CALM = {"entropy_share": 0.15, "learning_rates.alpha": 0.003}
POWER = {"updates": 4, "batch_size": 256, "start_after": 1000, "tau": 0.02}
PROVIDERS = {
    **CALM,
    "updates": 2,
    "batch_size": 256,
    "reward_scale": 1.0,
    "gamma": 0.0,
}
"""No sight beyond the moment: what a provider pleases is paid at once, and so is a crash."""
SPLIT = {**POWER, "reward_scale": 1.0, "target_entropy": -15.0, "learning_rates.alpha": 0.003}
GANG = {**CALM, "updates": 2, "batch_size": 256}
PROBLEMS: dict[str, Entry] = {
    "power-allocation": Entry(
        partial(_named, "power-allocation"),
        by_presets(32, POWER, 60),
        Aim("lost rate, %", lambda cost: cost["ours"], 2.0),
        "random",
        "water-filling",
        ("equal-power",),
    ),
    "provider-selection": Entry(
        providers,
        by_presets(16, PROVIDERS),
        Aim(
            "missing of the way from random to clairvoyant",
            lambda cost: (cost["ours"] - cost["clairvoyant"]) / (cost["random"] - cost["clairvoyant"]),
            0.10,
            also="available-times-quality",
        ),
        "random",
        "clairvoyant",
        ("most-available", "available-times-quality"),
        episodes=8,
    ),
    "split": Entry(
        partial(_named, "split"),
        {
            "pathwise": Way(pathwise, 60.0),
            "pathwise-plain": Way(partial(pathwise, chain=False), 60.0, "pathwise"),
            **by_presets(32, SPLIT),
        },
        Aim("ratio to the best split", lambda cost: cost["ours"] / cost["best-split"], 1.03, also="best-unit"),
        "random",
        "best-split",
        ("best-unit",),
    ),
    "gang": Entry(
        partial(_named, "gang"),
        by_presets(16, GANG),
        Aim("difference to greedy", lambda cost: cost["ours"] - cost["greedy"], 0.0, errors=2.0),
        "random",
        "greedy",
        ("warm-first",),
        episodes=128,
        note=of_gang,
    ),
    "fdedge": Entry(
        fdedge,
        {
            "pretrained:live": Way(partial(bundled, "live"), 1.0),
            "pretrained:stale": Way(partial(bundled, "stale"), 1.0),
        },
        Aim("ratio to Opt", lambda cost: cost["ours"] / cost["opt-ts"], 1.01),
        "random",
        "opt-ts",
        ("least-work-own", "weighted-round-robin"),
        episodes=16,
    ),
}


def run(problem: str, method: str, seed: int, episodes: int | None, seconds: float) -> list[str]:
    """Trains and judges one method; a row of the file. Args: episodes, seconds: of training, see `Way`."""
    warnings.filterwarnings("ignore")
    entry = PROBLEMS[problem]
    made, start = entry.make(seed), time.process_time()
    policy, trained = entry.ways[method].make(made, seed, seconds, episodes)
    spent = time.process_time() - start
    asked = dict.fromkeys((entry.worst, *entry.rules, entry.best))
    # where a seed is of training alone, all are judged on the same episodes; bundled policies on others each time
    judged = EPISODES_SEED + (seed if method.startswith("pretrained") else 0)
    rules = evaluate(made, list(asked), episodes=entry.episodes, seed=judged).results
    with set_exploration_type(judged_by(policy, chance=False)):  # trained with chance, it decides without
        ours = evaluate(made, {"ours": policy}, episodes=entry.episodes, seed=judged).results
        note = entry.note(made, policy)
    cost = {name: result.costs.mean for name, result in {**rules, **ours}.items()}
    score = (cost[entry.worst] - cost["ours"]) / (cost[entry.worst] - cost[entry.best])
    beside = "; ".join(f"{name} {cost[name]:.4g}" for name in asked)
    told = (
        f"{spent:.0f}",
        f"{cost['ours']:.5g}",
        f"{score:.4f}",
        f"{entry.aim.of(cost):.5g}",
        beside,
        note,
        "" if episodes else f"{seconds:g}",
    )
    return [problem, method, str(seed), str(trained), *told]


def summary(rows: list[list[str]]) -> list[list[str]]:
    """A row a problem and method, with whether its aim holds. Args: rows: of the file."""
    lines = []
    for problem, method in dict.fromkeys((row[0], row[1]) for row in rows):
        if problem not in PROBLEMS:
            continue
        each, aim = [row for row in rows if row[:2] == [problem, method]], PROBLEMS[problem].aim
        cost, score, measure = ([float(row[k]) for row in each] for k in (5, 6, 7))
        error = stdev(measure) / math.sqrt(len(measure)) if len(measure) > 1 else math.nan
        reached = mean(measure) + (aim.errors * error if aim.errors else 0.0)
        holds = reached < aim.most if aim.errors else reached <= aim.most
        if aim.also is not None:
            holds = holds and mean(cost) < mean(_beside(row[8])[aim.also] for row in each)
        asked = f"<= {aim.most:g}" if not aim.errors else f"mean + {aim.errors:g} s.e. < {aim.most:g}"
        asked += f", below {aim.also}" if aim.also else ""
        told = (f"{mean(cost):.4g}", f"{mean(score):.3f}", aim.says, f"{mean(measure):.4g}", f"{error:.2g}")
        lines.append([problem, method, str(len(each)), *told, asked, "yes" if holds else "no"])
    return lines


def ways() -> list[tuple[str, str]]:
    """Problems and methods, in the table's order."""
    return [(name, method) for name, entry in PROBLEMS.items() for method in entry.ways]


def _beside(text: str) -> dict[str, float]:
    """Mean costs of the rules of a row."""
    return {name: float(value) for name, value in (part.rsplit(" ", 1) for part in text.split("; "))}


def main() -> None:
    """Trains all, writes each row as it comes, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--only", default=",".join(PROBLEMS), help="problems, or problem:method")
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args()
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.reader(options.csv.open()))[1:] if options.csv.exists() else []
    rows = [[*row, *[""] * (len(COLUMNS) - len(row))] for row in rows]
    asked = options.only.split(",")
    had = {tuple(row[:3]): int(row[3]) for row in rows}
    jobs = [
        Job(
            (name, method, str(seed)),
            partial(run, name, method, seed, had.get((name, str(way.control_of), str(seed)))),
            way.seconds,
        )
        for name, entry in PROBLEMS.items()
        for method, way in entry.ways.items()
        for seed in range(options.seeds)
        if name in asked or f"{name}:{method}" in asked
    ]
    order = {(name, method): k for k, (name, method) in enumerate(ways())}
    jobs = [job for job in jobs if list(job.name) not in [row[:3] for row in rows]]

    def done(job: Job, row: Any, why: str) -> None:
        if row is None:
            print(f"{' '.join(job.name)}: {why}", flush=True)
            return
        rows.append(row)
        rows.sort(key=lambda each: (order.get((each[0], each[1]), len(order)), int(each[2])))
        write(options.csv, [list(COLUMNS), *rows])
        write(options.csv.with_name(f"{options.csv.stem}_table.csv"), [list(SUMMARY), *summary(rows)])
        print(" ".join(row[:8]), row[9], flush=True)

    best = {(name, method): way.seconds for name, entry in PROBLEMS.items() for method, way in entry.ways.items()}
    known = [(best[row[0], row[1]], row[GIVEN]) for row in rows if (row[0], row[1]) in best]
    run_jobs(jobs, options.jobs, options.minutes, done, part_given(known))
    print(table(list(SUMMARY), summary(rows)))
    print(machine())


def write(path: Path, lines: list[list[str]]) -> None:
    """Writes a CSV. Args: path: of it. lines: its rows."""
    write_csv(path, lines)


if __name__ == "__main__":
    main()
