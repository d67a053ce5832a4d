"""Methods beside their controls on problems whose best is known: a score of 0 is random play, 1 the best possible.

python benchmarks/methods.py --csv docs/_static/benchmarks.csv --seeds 5 --jobs 16 --minutes 5
python benchmarks/methods.py --problems cartpole --methods qvpo,sac --seeds 1 --csv runs/benchmarks.csv

With `--jobs` there are as many processes of one thread each, and with `--minutes` each training gets such a part of the
processor time that its problem names that all of them end, or the part that `--part` says. What is in the file already
is not trained again, so that an interrupted run goes on where it was, with as many seconds for each as those had. The
file holds a row for each problem, method and seed; beside it, with `_table` in its name, lies the table of means and
intervals. A problem or a method is added by a line in `PROBLEMS` or `METHODS`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase
from torchrl.envs.utils import set_exploration_type

from diffpolicy.environments import EnvProblem
from diffpolicy.evaluation import evaluate
from diffpolicy.experiments import make_problem, train
from diffpolicy.experiments.method_names import METHOD_NAMES
from diffpolicy.problems import ProviderSelection
from ending import EndsAfter
from jobs import Job, part_given, run_jobs
from judging import judged_by
from timing import machine, table, write_csv

COLUMNS = ("problem", "method", "seed", "episodes", "mean return", "score", "seconds", "given")
GIVEN = COLUMNS.index("given")
"""Seconds that a training was given, empty where it was not bounded; older files do not tell."""
SUMMARY = ("problem", "method", "control", "seeds", "score", "95 % interval", "seconds of one thread")
ITEMS, CHOICES = 3, 4


class PairGains(EnvBase):
    """One step, three items of four choices, about a fifth forbidden; the reward is the sum of gains of all pairs.

    What is seen is which item it is, so that nothing but the interplay of choices is to be learned.
    """

    batch_locked = True

    def __init__(self, batch: int, seed: int = 0) -> None:
        super().__init__(batch_size=[batch])
        drawn = torch.Generator().manual_seed(1)
        pairs = itertools.combinations(range(ITEMS), 2)
        self.gains = {pair: torch.randn(CHOICES, CHOICES, generator=drawn) for pair in pairs}
        self.allowed = torch.rand(ITEMS, CHOICES, generator=drawn) < 0.8
        self.allowed[:, 0] = True
        shown = {
            "observation": Unbounded((batch, ITEMS, ITEMS)),
            "action_mask": Binary(CHOICES, (batch, ITEMS, CHOICES), dtype=torch.bool),
        }
        self.observation_spec = Composite(shown, shape=(batch,))
        self.action_spec = Categorical(CHOICES, (batch, ITEMS))
        self.reward_spec = Unbounded((batch, 1))

    def gain(self, action: torch.Tensor) -> torch.Tensor:
        """Of actions `[.., items]`, `[..]`."""
        return torch.stack([t[action[..., i], action[..., j]] for (i, j), t in self.gains.items()]).sum(0)

    def range(self) -> tuple[float, float]:
        """The mean gain of allowed actions, which random play has, and the best."""
        actions = torch.tensor(list(itertools.product(range(CHOICES), repeat=ITEMS)))
        possible = self.gain(actions)[self.allowed[torch.arange(ITEMS), actions].all(-1)]
        return float(possible.mean()), float(possible.max())

    def _now(self, over: bool) -> TensorDict:
        seen = torch.eye(ITEMS).repeat(*self.batch_size, 1, 1)
        ends = torch.full((*self.batch_size, 1), over)
        flags = {"done": ends, "terminated": ends.clone(), "truncated": torch.zeros_like(ends)}
        mask = self.allowed.repeat(*self.batch_size, 1, 1)
        return TensorDict({"observation": seen, "action_mask": mask, **flags}, batch_size=self.batch_size)

    def _reset(self, tensordict: Any = None, **_: Any) -> TensorDict:
        return self._now(over=False)

    def _step(self, tensordict: TensorDict) -> TensorDict:
        return self._now(over=True).set("reward", self.gain(tensordict["action"]).unsqueeze(-1))

    def _set_seed(self, seed: int | None) -> None:
        pass


@dataclass(frozen=True)
class Task:
    """A problem and how long it is trained on.

    Args:
        make: gives the problem, or its name, of a seed: where a seed is a draw of the problem, another one.
        worst, best: mean returns of random play and of the best possible, or the rules that have them.
        episodes, environments: of training. changes: fields of every method's preset, where it has them.
        methods: on which it makes sense; none: all. seconds: of training, where there is a budget.
        chance: whether policies decide with chance, as they were trained. teacher: the rule that imitation copies.
    """

    make: Callable[[int], Any]
    worst: float | str
    best: float | str
    episodes: int
    environments: int = 1
    changes: dict[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    seconds: float = 30.0
    chance: bool = True
    teacher: str | None = None

    def score(self, returned: float, of_rules: Mapping[str, float] | None = None) -> float:
        """0 for random play, 1 for the best possible. Args: of_rules: mean returns of rules by their names."""
        worst, best = (end if isinstance(end, float) else (of_rules or {})[end] for end in (self.worst, self.best))
        return (returned - worst) / (best - worst)


TOKENS = {"steps": ITEMS, "token_sampler": {"kind": "Ancestral", "order": "confidence"}}
CALM = {"entropy_share": 0.15, "learning_rates.alpha": 0.003}
SHARES = {"updates": 4, "batch_size": 256, "start_after": 1000, "tau": 0.02}
OF_CHOICES = ("d2sac", "sac", "qvpo", "qvpo-plain", "rl-d2", "rl-d2-plain", "qdfm", "qdfm-plain", "dppo", "ppo")
TAUGHT = ("bc", "bc-plain", "distill", "distill-plain")
"""Methods that learn of somebody, on problems that name them."""
PROBLEMS: dict[str, Task] = {
    "pair gains": Task(
        lambda seed: EnvProblem(PairGains, steps=1, name="pair gains"),
        *PairGains(1).range(),
        episodes=32 * 300,
        environments=32,
        changes={
            "items": "joint",
            "denoiser": {"kind": "MLPDenoiser"},
            "gamma": 0.0,
            "tau": 0.05,
            "reward_scale": 1.0,
            "batch_size": 64,
            "start_after": 256,
        },
    ),
    "clinic": Task(
        lambda seed: "clinic",
        "random",
        "dearest-first",
        episodes=640,
        environments=16,
        methods=(*OF_CHOICES, *TAUGHT),
        seconds=30.0,
        teacher="dearest-first",
    ),
    "power-allocation": Task(
        lambda seed: "power-allocation",
        "random",
        "water-filling",
        episodes=960,
        environments=32,
        changes=SHARES,
        methods=("d2sac", "sac", "qvpo", "qvpo-plain", "fql", "fql-plain", "fpo", "ppo"),
        seconds=50.0,
        chance=False,
    ),
    "split": Task(
        lambda seed: "split",
        "random",
        "best-split",
        episodes=1920,
        environments=32,
        changes={**SHARES, "reward_scale": 1.0, "target_entropy": -15.0, "learning_rates.alpha": 0.003},
        methods=("d2sac", "sac", "qvpo", "qvpo-plain"),
        seconds=50.0,
        chance=False,
    ),
    "provider-selection": Task(
        lambda seed: ProviderSelection(seed),
        "random",
        "clairvoyant",
        episodes=96,
        environments=16,
        changes={**CALM, "updates": 2, "batch_size": 256, "reward_scale": 1.0, "gamma": 0.0},
        methods=("d2sac", "sac", "qvpo", "qvpo-plain"),
        seconds=120.0,
        chance=False,
    ),
    # nobody knows its best: 1 is greed, which can be passed
    "gang": Task(
        lambda seed: "gang",
        "random",
        "greedy",
        episodes=2400,
        environments=16,
        changes={**CALM, "updates": 2, "batch_size": 256},
        methods=("d2sac", "sac"),
        seconds=120.0,
        chance=False,
    ),
    "cartpole": Task(lambda seed: "gym:CartPole-v1", 22.0, 500.0, episodes=150),
    # the best is what the best published controllers reach, about; nobody knows it exactly
    "pendulum": Task(
        lambda seed: "gym:Pendulum-v1", -1230.0, -150.0, episodes=100, methods=("qvpo", "qvpo-plain", "sac", "d2sac")
    ),
}
TABLE = ("pair gains", "clinic", "power-allocation", "split", "provider-selection", "gang")
"""The problems of the table; the others need Gymnasium."""
METHODS: dict[str, dict[str, Any]] = {
    "sac": {},
    "d2sac": {},
    "qvpo": {},
    "qvpo-plain": {},
    "rl-d2": {},
    "rl-d2-onpolicy": {},
    "rl-d2-plain": {},
    "rl-d2-reverse": {},
    "rl-d2-reverse-plain": {},
    "qdfm": {},
    "qdfm-plain": {},
    "fql": {},
    "fql-plain": {},
    # of short play, so that there are some tens of updates
    "dppo": {"collect": 400, "batch_size": 100},
    "fpo": {"collect": 400, "batch_size": 100},
    "ppo": {"collect": 400, "batch_size": 100},
    "bc": {},
    "bc-plain": {},
    "distill": {},
    "distill-plain": {},
}
"""Presets, and what of them is changed on every problem."""
CONTROLS = {"d2sac": "sac", "rl-d2-onpolicy": "rl-d2-plain", "dppo": "ppo", "fpo": "ppo"}
"""Controls that are not the preset's name with `-plain`."""
TEACHERS = {"distill": "d2sac", "distill-plain": "d2sac"}
"""Whose teacher is trained too, in the first half of the time."""
VECTORS = ("fql", "fql-plain", "fpo")
"""Methods of vectors alone, on problems that name them."""
CHAINS_OF_ONE_TOKEN_A_STEP = ("qvpo", "rl-d2", "rl-d2-onpolicy")


def fits(problem: str, method: str) -> bool:
    """Whether a method is run on a problem. Args: both by name."""
    named = PROBLEMS[problem].methods
    return method in named if named else method not in (*VECTORS, *TAUGHT)


def control_of(method: str) -> str:
    """The preset without a chain that stands beside one, or nothing. Args: method: a preset."""
    name = CONTROLS.get(method, f"{method}-plain")
    return name if name in METHOD_NAMES and name != method else ""


def changes_of(problem: str, method: str) -> dict[str, Any]:
    """Fields of a preset on a problem, those that it has. Args: both by name."""
    from diffpolicy.experiments import make_method

    known, task = vars(make_method(method)), PROBLEMS[problem]
    given = {**task.changes, **METHODS[method]}
    if task.teacher is not None:
        given["teacher"] = task.teacher
    if problem == "pair gains" and method in CHAINS_OF_ONE_TOKEN_A_STEP:
        given |= TOKENS
    rates = known["learning_rates"]
    parts = {name: name.partition(".") for name in given}
    fits = {name for name, (first, _, rate) in parts.items() if first in known and (not rate or rate in rates)}
    return {name: value for name, value in given.items() if name in fits}


def ending(seconds: float | None) -> list[EndsAfter]:
    """What ends a training, amid a pass if need be: one of `provider-selection` takes 25 s. Args: seconds: or None."""
    return [] if seconds is None else [EndsAfter(seconds, amid=True)]


def run(problem: str, method: str, seed: int, share: float, eval_episodes: int, seconds: float | None) -> list[str]:
    """Trains and judges one method; a row of the file.

    Args:
        share: of the episodes that the problem names.
        seconds: of processor time that training may take; None: as long as it takes.
    """
    # gains of pairs are the same for all
    warnings.filterwarnings("ignore", message=".*does its seed do nothing.*")
    task = PROBLEMS[problem]
    made = task.make(seed)
    made = make_problem(made) if isinstance(made, str) else made
    episodes = max(task.environments, round(share * task.episodes))
    start, lived, teacher, changes = time.process_time(), 0, TEACHERS.get(method), changes_of(problem, method)
    with tempfile.TemporaryDirectory() as folder:
        learn = partial(train, made, episodes=episodes, environments=task.environments, seed=seed)
        if teacher is not None:
            half, chain = ending(None if seconds is None else seconds / 2), str(Path(folder) / "teacher")
            lived = learn(teacher, callbacks=half, changes=changes_of(problem, teacher), out=chain).episodes
            lived += sum(each.begun for each in half)
            changes["teacher"] = chain
        until = ending(None if seconds is None else seconds - (time.process_time() - start))
        fitted = learn(method, callbacks=until, changes=changes, out=Path(folder) / "run")
        lived += fitted.episodes + sum(each.begun for each in until)
        spent = time.process_time() - start
        name, rules = str(Path(folder) / "run"), [end for end in (task.worst, task.best) if isinstance(end, str)]
        count, judged = min(eval_episodes, 8) if made.steps and made.steps > 1000 else eval_episodes, 10_000 + seed
        with set_exploration_type(judged_by(fitted.policy, chance=task.chance)):
            played = evaluate(made, [name], episodes=count, seed=judged).results
        played |= evaluate(made, rules, episodes=count, seed=judged).results if rules else {}
    returned = {of: -result.costs.mean for of, result in played.items()}
    told = (f"{returned[name]:.4g}", f"{task.score(returned[name], returned):.4f}", f"{spent:.1f}")
    return [problem, method, str(seed), str(lived), *told, "" if seconds is None else f"{seconds:g}"]


def summary(rows: list[list[str]]) -> list[list[str]]:
    """Means over seeds with t intervals, a row a problem and method. Args: rows: of the file."""
    lines = []
    for (problem, method), group in itertools.groupby(sorted(rows), key=lambda row: (row[0], row[1])):
        each = list(group)
        scores = torch.tensor([float(row[5]) for row in each], dtype=torch.float64)
        n = len(scores)
        # two-sided 97.5 % points of Student's law with n - 1 degrees of freedom
        point = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}.get(n, 2.0)
        half = f"± {point * float(scores.std()) / math.sqrt(n):.3f}" if n > 1 else ""
        spent = sum(float(row[6]) for row in each) / n
        lines.append([problem, method, control_of(method), str(n), f"{float(scores.mean()):.3f}", half, f"{spent:.0f}"])
    return lines


def main() -> None:
    """Trains what is missing, writes each row as it comes, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", default=",".join(TABLE))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of the episodes of training")
    parser.add_argument("--eval-episodes", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--minutes", type=float, help="of all; none: as long as it takes")
    parser.add_argument("--part", type=float, help="of its problem's seconds that each training gets")
    parser.add_argument("--csv", "--out", dest="out", type=Path, required=True)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.reader(options.out.open()))[1:] if options.out.exists() else []
    rows = [[*row, *[""] * (len(COLUMNS) - len(row))] for row in rows]
    known = {tuple(row[:3]) for row in rows}
    problems, methods = options.problems.split(","), options.methods.split(",")
    for option, names, there in (("--problems", problems, PROBLEMS), ("--methods", methods, METHODS)):
        unknown = [name for name in names if name not in there]
        if unknown:
            parser.error(f"{option} must be of {', '.join(there)}, got {unknown[0]}")
    pairs = [(problem, method) for problem, method in itertools.product(problems, methods) if fits(problem, method)]
    if not pairs:
        parser.error(f"none of {options.methods} is run on {options.problems}; see PROBLEMS in this file")
    bounded = options.minutes is not None or options.part is not None
    jobs = []
    for (problem, method), seed in itertools.product(pairs, range(options.seeds)):
        if (problem, method, str(seed)) not in known:
            work = partial(_job, problem, method, seed, options.share, options.eval_episodes, bounded)
            jobs.append(Job((problem, method, str(seed)), work, PROBLEMS[problem].seconds, beside=6.0))

    def done(job: Job, row: Any, why: str) -> None:
        if row is None:
            print(f"{' '.join(job.name)}: {why}", flush=True)
            return
        rows.append(row)
        write(options.out, [list(COLUMNS), *rows])
        tabled()
        print(" ".join(row), flush=True)

    def tabled() -> None:
        write(options.out.with_name(f"{options.out.stem}_table.csv"), [list(SUMMARY), *summary(rows)])

    given = part_given((PROBLEMS[row[0]].seconds, row[GIVEN]) for row in rows if row[0] in PROBLEMS)
    part = given if options.part is None else options.part
    run_jobs(jobs, options.jobs, LONG if options.minutes is None else options.minutes, done, part)
    if rows:
        tabled()  # also of rows that were there before
    print(table(list(SUMMARY), summary(rows)))
    print(machine())


LONG = 1e4
"""Minutes, where there is no budget."""


def _job(problem: str, method: str, seed: int, share: float, episodes: int, bounded: bool, seconds: float) -> list[str]:
    """`run`, within a job's seconds where there is a budget."""
    return run(problem, method, seed, share, episodes, seconds if bounded else None)


def write(path: Path, lines: list[list[str]]) -> None:
    """Writes a CSV. Args: path: of it. lines: its rows."""
    write_csv(path, lines)


if __name__ == "__main__":
    main()
