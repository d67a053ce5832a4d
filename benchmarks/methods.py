"""Methods beside their controls on problems whose best is known: a score of 0 is random play, 1 the best possible.

python benchmarks/methods.py --out docs/_static/benchmarks.csv --seeds 5
python benchmarks/methods.py --problems cartpole --methods qvpo,sac --seeds 1 --out runs/benchmarks.csv

What is in the file already is not trained again, so that an interrupted run goes on where it was. The file holds a row
for each problem, method and seed; beside it, with `_table` in its name, lies the table of means and intervals. A
problem or a method is added by a line in `PROBLEMS` or `METHODS`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy.environments import EnvProblem
from diffpolicy.evaluation import evaluate
from diffpolicy.experiments import make_problem, train
from diffpolicy.experiments.names import METHOD_NAMES
from timing import machine, table

COLUMNS = ("problem", "method", "seed", "episodes", "mean return", "score", "seconds")
SUMMARY = ("problem", "method", "control", "seeds", "score", "95 % interval", "seconds of one thread")
ITEMS, CHOICES = 3, 4


class PairGains(EnvBase):
    """One step, three items of four choices, about a fifth forbidden; the reward is the sum of gains of all pairs.

    What is seen is which item it is, so that nothing but the interplay of choices is to be learnt.
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
        make: gives the problem, or its name. worst, best: mean returns of random play and of the best possible.
        episodes, environments: of training. changes: fields of every method's preset, where it has them.
        methods: on which it makes sense; none: all.
    """

    make: Callable[[], Any]
    worst: float
    best: float
    episodes: int
    environments: int = 1
    changes: dict[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = ()

    def score(self, returned: float) -> float:
        """0 for random play, 1 for the best possible."""
        return (returned - self.worst) / (self.best - self.worst)


TOKENS = {"steps": ITEMS, "token_sampler": {"kind": "Ancestral", "order": "confidence"}}
PROBLEMS: dict[str, Task] = {
    "pair gains": Task(
        lambda: EnvProblem(PairGains, steps=1, name="pair gains"),
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
    "cartpole": Task(lambda: "gym:CartPole-v1", 22.0, 500.0, episodes=150),
    # the best is what the best published controllers reach, about; nobody knows it exactly
    "pendulum": Task(
        lambda: "gym:Pendulum-v1", -1230.0, -150.0, episodes=100, methods=("qvpo", "qvpo-plain", "sac", "d2sac")
    ),
}
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
}
"""Presets, and what of them is changed on every problem."""
CONTROLS = {"d2sac": "sac", "rl-d2-onpolicy": "rl-d2-plain"}
"""Controls that are not the preset's name with `-plain`."""
CHAINS_OF_ONE_TOKEN_A_STEP = ("qvpo", "rl-d2", "rl-d2-onpolicy")


def control_of(method: str) -> str:
    """The preset without a chain that stands beside one, or nothing. Args: method: a preset."""
    name = CONTROLS.get(method, f"{method}-plain")
    return name if name in METHOD_NAMES and name != method else ""


def changes_of(problem: str, method: str) -> dict[str, Any]:
    """Fields of a preset on a problem, those that it has. Args: both by name."""
    from diffpolicy.experiments import make_method

    known = vars(make_method(method))
    given = {**PROBLEMS[problem].changes, **METHODS[method]}
    if problem == "pair gains" and method in CHAINS_OF_ONE_TOKEN_A_STEP:
        given |= TOKENS
    return {name: value for name, value in given.items() if name in known}


def run(problem: str, method: str, seed: int, share: float, eval_episodes: int) -> list[str]:
    """Trains and judges one method; a row of the file. Args: share: of the episodes that the problem names."""
    task = PROBLEMS[problem]
    made = task.make()
    made = make_problem(made) if isinstance(made, str) else made
    episodes = max(task.environments, round(share * task.episodes))
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        fitted = train(
            made,
            method,
            episodes=episodes,
            environments=task.environments,
            seed=seed,
            changes=changes_of(problem, method),
            out=Path(folder) / "run",
        )
        seconds = time.process_time() - start
        name = str(Path(folder) / "run")
        played = evaluate(made, [name], episodes=eval_episodes, seed=10_000 + seed)
    returned = -played.results[name].costs.mean
    told = (f"{returned:.4g}", f"{task.score(returned):.4f}", f"{seconds:.1f}")
    return [problem, method, str(seed), str(fitted.episodes), *told]


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
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of the episodes of training")
    parser.add_argument("--eval-episodes", type=int, default=32)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*does its seed do nothing.*")  # gains of pairs are the same for all
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.reader(options.out.open()))[1:] if options.out.exists() else []
    known = {tuple(row[:3]) for row in rows}
    asked = itertools.product(options.problems.split(","), options.methods.split(","), range(options.seeds))
    for problem, method, seed in asked:
        only = PROBLEMS[problem].methods
        if (problem, method, str(seed)) in known or (only and method not in only):
            continue
        rows.append(run(problem, method, seed, options.share, options.eval_episodes))
        write(options.out, [list(COLUMNS), *rows])
        write(options.out.with_name(f"{options.out.stem}_table.csv"), [list(SUMMARY), *summary(rows)])
    print(table(list(SUMMARY), summary(rows)))
    print(machine())


def write(path: Path, lines: list[list[str]]) -> None:
    """Writes a CSV. Args: path: of it. lines: its rows."""
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


if __name__ == "__main__":
    main()
