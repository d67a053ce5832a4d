"""Methods of vectors within bounds on Gymnasium's Pendulum, beside TorchRL's own soft actor-critic, for the same time.

python benchmarks/pendulum.py --seeds 5 --jobs 15 --minutes 60 --csv runs/pendulum.csv
python benchmarks/pendulum.py --seeds 1 --each 1 --minutes 5 --methods sac,torchrl-sac --csv runs/smoke.csv

Each method and seed is trained in a process of one thread, for as many minutes of processor time as each other, which
others on the machine do not take away, and is then judged on the same episodes as all others of its seed. What is in
the file already is not trained again, so that an interrupted run goes on where it was. Without `--each` the minutes of
each are such that all ends within `--minutes` on a machine that is free, or as many as those in the file had. The
measure is a mean return of -200, which a policy has that swings up and holds.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import SACLoss, SoftUpdate

from diffpolicy import DiffusionPolicy
from diffpolicy.environments import Problem
from diffpolicy.evaluation import evaluate
from diffpolicy.experiments import make_problem, train
from ending import EndsAfter
from jobs import Job, part_given, run_jobs
from timing import machine, table, write_csv

PROBLEM = "gym:Pendulum-v1"
STEPS = 200
COLUMNS = ("method", "seed", "minutes", "episodes", "mean return", "without noise")
SUMMARY = ("method", "seeds", "episodes", "mean return", "95 % interval", "worst seed", "without noise")
NO_END = 10**6
LONGEST = 1800.0
"""Seconds that a training is given at most."""

# Rewards of a step are from -16.3 to 0, and what counts of the future is a second or two: a discount of 0.98 with
# rewards of a tenth keeps values within some tens. One update a step of play, from 128 rows, is what soft actor-critic
# is run with there; actors of chains learn at half of its rate or less, behind the critic that they follow.
REPLAYED = {
    "hidden": [128, 128],
    "gamma": 0.98,
    "tau": 0.01,
    "capacity": 100_000,
    "batch_size": 128,
    "start_after": 1000,
    "reward_scale": 0.1,
}
# Of what is played on the way there is plenty: short looks ahead (0.9) and rows of many episodes at once.
PLAYED = {"hidden": [64, 64], "gamma": 0.9, "collect": 1600, "epochs": 10, "batch_size": 200}
METHODS: dict[str, dict[str, Any]] = {
    "sac": {**REPLAYED, "learning_rates": {"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3}},
    "d2sac": {**REPLAYED, "learning_rates": {"actor": 5e-4, "critic": 1e-3, "alpha": 1e-3}},
    # the paper's: the best of its actions is learned, targets and play take the best of four, uniform ones explore; a
    # narrower actor than critics, since sixteen chains a state are most of an update
    "qvpo": {
        **REPLAYED,
        "process": "flow",
        "steps": 5,
        "denoiser": {"kind": "MLPDenoiser", "hidden": [64, 64]},
        "updates": 4,
        "batch_size": 64,
        "samples": 16,
        "next_samples": 4,
        "best_of": 4,
        "kept": 1,
        "uniform": 4,
        "entropy": 0.02,
        "learning_rates": {"actor": 5e-4, "critic": 1e-3},
    },
    "fql": {**REPLAYED, "updates": 4, "alpha": 0.03, "learning_rates": {"actor": 3e-4, "critic": 1e-3, "flow": 1e-3}},
    # at the rate of its paper: at 1e-3 most ratios leave the bound, and returns fall again
    "fpo": {**PLAYED, "samples": 8, "clip": 0.1, "learning_rates": {"actor": 3e-4, "critic": 1e-3}},
    "dppo": {**PLAYED, "min_std": 0.3, "learning_rates": {"actor": 1e-3, "critic": 1e-3}},
    "ppo": {**PLAYED, "entropy": 0.0, "learning_rates": {"actor": 1e-3, "critic": 1e-3}},
    "torchrl-sac": {},
}
"""Presets, and what of them is changed here; the last one is not ours."""
LANES = {"qvpo": 4, "fql": 4, "fpo": 8, "dppo": 8, "ppo": 8}
"""Environments side by side, so that a step of a chain is of several rows; one elsewhere."""
STILL = {"dppo": "ddpm"}
"""The sampler without the noise by which a method explores, where its policy keeps it."""
MODES = ("sac", "ppo")
"""Whose law has a mode, the action without noise."""


def ours(method: str, seed: int, seconds: float, episodes: int) -> list[str]:
    """Trains and judges a preset; a row of the file. Args: episodes: on which it is judged."""
    problem = make_problem(PROBLEM)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        fitted = train(
            problem,
            method,
            episodes=NO_END,
            callbacks=[EndsAfter(seconds)],
            environments=LANES.get(method, 1),
            seed=seed,
            changes=METHODS[method],
            out=out,
        )
    policy = fitted.policy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that another sampler makes another policy is what is asked here
        still = policy.with_sampler(STILL[method]) if method in STILL else policy
    returns = judged(problem, policy, still if method in (*STILL, *MODES) else None, seed, episodes)
    return [method, str(seed), f"{seconds / 60:g}", str(fitted.episodes), *returns]


def judged(problem: Problem, policy: Any, still: Any, seed: int, episodes: int) -> list[str]:
    """Mean returns on the episodes of a seed, as it was trained to act and without noise.

    Args:
        problem: played. policy, still: the second acts by its modes; None: there is nothing to take away.
        seed: of training. episodes: how many.
    """
    shared = {"episodes": episodes, "seed": 10_000 + seed}
    with set_exploration_type(ExplorationType.RANDOM):
        found = [f"{-evaluate(problem, {'it': policy}, **shared).results['it'].costs.mean:.1f}"]
    if still is None:
        return [*found, ""]
    kind = ExplorationType.RANDOM if isinstance(still, DiffusionPolicy) else ExplorationType.DETERMINISTIC
    with set_exploration_type(kind):
        return [*found, f"{-evaluate(problem, {'it': still}, **shared).results['it'].costs.mean:.1f}"]


class TorchRLSAC:
    """TorchRL's `SACLoss` with a replay, twin critics and a temperature of its own, put together as its examples do.

    Args:
        seed: of parameters and draws.
    """

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        options = {**REPLAYED}
        width = options["hidden"]
        heads = nn.Sequential(MLP(3, 2, num_cells=width, activation_class=nn.ReLU), NormalParamExtractor())
        self.actor = ProbabilisticActor(
            TensorDictModule(heads, ["observation"], ["loc", "scale"]),
            in_keys=["loc", "scale"],
            distribution_class=TanhNormal,
            distribution_kwargs={"low": torch.full((1,), -2.0), "high": torch.full((1,), 2.0)},
            return_log_prob=False,
        )
        critic = ValueOperator(MLP(4, 1, num_cells=width, activation_class=nn.ReLU), ["observation", "action"])
        self.loss = SACLoss(self.actor, critic, num_qvalue_nets=2, target_entropy=-1.0)
        self.loss.make_value_estimator(gamma=options["gamma"])
        self.targets = SoftUpdate(self.loss, tau=options["tau"])
        self.optimizer = torch.optim.Adam(self.loss.parameters(), 1e-3)
        storage = LazyTensorStorage(options["capacity"])
        self.replay = TensorDictReplayBuffer(storage=storage, batch_size=options["batch_size"])
        self.scale, self.start_after = options["reward_scale"], options["start_after"]

    def seen(self, step: TensorDict) -> None:
        """Remembers a step of play, and learns of those before it."""
        kept = step.select("observation", "action", ("next", "observation"), ("next", "reward"), ("next", "done"))
        kept["next", "reward"] = self.scale * kept["next", "reward"]
        kept["next", "terminated"] = torch.zeros_like(kept["next", "done"])  # an episode's end is a truncation
        self.replay.extend(kept.reshape(-1))
        if len(self.replay) <= self.start_after:
            return
        found = self.loss(self.replay.sample())
        total = found["loss_actor"] + found["loss_qvalue"] + found["loss_alpha"]
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        self.targets.step()


def theirs(seed: int, seconds: float, episodes: int) -> list[str]:
    """Trains and judges TorchRL's soft actor-critic; a row of the file. Args: of `ours`."""
    problem = make_problem(PROBLEM)
    learner, end, done = TorchRLSAC(seed), time.process_time() + seconds, 0
    env: EnvBase = problem.make_env(1, seed)
    while time.process_time() < end:
        env.set_seed(1_000_000 * seed + done)
        state = env.reset()
        for _ in range(STEPS):
            with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
                step, state = env.step_and_maybe_reset(learner.actor(state))
            learner.seen(step)
        done += 1

    def acting(td: TensorDict) -> TensorDict:
        with torch.no_grad():
            return td.set("action", learner.actor(td.select("observation"))["action"])

    returns = judged(problem, acting, acting, seed, episodes)
    return ["torchrl-sac", str(seed), f"{seconds / 60:g}", str(done), *returns]


def job(method: str, seed: int, episodes: int, seconds: float) -> list[str]:
    """A method and seed, in a process of its own. Args: of `ours`."""
    return theirs(seed, seconds, episodes) if method == "torchrl-sac" else ours(method, seed, seconds, episodes)


def summary(rows: list[list[str]]) -> Iterator[list[str]]:
    """Means over seeds with t intervals, a row a method, the best first. Args: rows: of the file."""
    groups = {name: list(each) for name, each in itertools.groupby(sorted(rows), key=lambda row: row[0])}
    for name, each in sorted(groups.items(), key=lambda pair: -_mean(pair[1], 4)):
        values = torch.tensor([float(row[4]) for row in each], dtype=torch.float64)
        n = len(values)
        # two-sided 97.5 % points of Student's law with n - 1 degrees of freedom
        point = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}.get(n, 2.0)
        half = f"± {point * float(values.std()) / math.sqrt(n):.0f}" if n > 1 else ""
        still = f"{_mean(each, 5):.0f}" if each[0][5] else ""
        lived = f"{_mean(each, 3):.0f}"
        yield [name, str(n), lived, f"{float(values.mean()):.0f}", half, f"{float(values.min()):.0f}", still]


def _mean(rows: list[list[str]], column: int) -> float:
    return sum(float(row[column]) for row in rows) / len(rows)


def main() -> None:
    """Trains what is missing, writes each row as it comes, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side, of one thread each")
    parser.add_argument("--minutes", type=float, default=60.0, help="of all, which each has an equal part of")
    parser.add_argument("--each", type=float, help="minutes of processor time of each training")
    parser.add_argument("--eval-episodes", type=int, default=32)
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args()
    chosen = options.methods.split(",")
    unknown = [name for name in chosen if name not in METHODS]
    if unknown:
        parser.error(f"--methods must be of {', '.join(METHODS)}, got {unknown[0]}")
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.reader(options.csv.open()))[1:] if options.csv.exists() else []
    known = {(row[0], row[1]) for row in rows}
    asked = [(m, s) for s, m in itertools.product(range(options.seeds), chosen) if (m, str(s)) not in known]
    longest = LONGEST if options.each is None else 60 * options.each
    jobs = [Job((m, str(s)), partial(job, m, s, options.eval_episodes), longest, beside=90.0) for m, s in asked]

    def done(job: Job, row: Any, why: str) -> None:
        if row is None:
            print(f"{' '.join(job.name)}: {why}", flush=True)
            return
        rows.append(row)
        print(", ".join(row), flush=True)
        write_csv(options.csv, [list(COLUMNS), *sorted(rows)])

    part = 1.0 if options.each else part_given((LONGEST, str(60 * float(row[2]))) for row in rows)
    run_jobs(jobs, options.jobs, options.minutes, done, part)
    print(table(list(SUMMARY), list(summary([row for row in rows if row[0] in chosen]))))
    print(machine())


if __name__ == "__main__":
    main()
