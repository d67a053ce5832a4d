"""Evaluating policies of the edge problem: on a scenario's episodes, or on the tasks of a file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from diffpolicy._types import Floats, Ints
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.env.slot_sources import TaskListSource
from diffpolicy.edge.metrics import Delays, Evaluation
from diffpolicy.edge.physics.file_steps import FileSteps
from diffpolicy.edge.problem import TASK, OffloadingProblem
from diffpolicy.edge.problem import WORK as WORK
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.task_file import TaskList
from diffpolicy.errors import InputError
from diffpolicy.evaluation import evaluating
from diffpolicy.evaluation.evaluating import naming
from diffpolicy.evaluation.playing import Played, play, undisturbed
from diffpolicy.policies.protocols import Decides, ShowsLevel


def play_episodes(scenario: Scenario, policy: Decides, episodes: int, seed: int = 0) -> Played:
    """Plays the first episodes of a scenario's evaluation stream, in float64.

    Args:
        scenario: needs a workload and slots. policy: reads the keys of its `information` level ("paper" without one).
        episodes: at least 1.
        seed: of the arrivals, and of the global generators while a policy plays that draws from them.

    Returns:
        The delay of each task in seconds, `[K]`, in order of slot, episode and task, and which episode it was in.

    Raises:
        InputError: the scenario has no workload or no slots, the policy does not fit, or a delay is not finite.

    Example:
        >>> scenario = Scenario.load("lad-ts").override(tasks=5, stations=3, slots=4)
        >>> played = play_episodes(scenario, make_policy("opt-ts", scenario), episodes=2)
        >>> played.cost.shape == played.episode.shape, sorted({int(k) for k in played.episode})
        (True, [0, 1])
    """
    return evaluating.play_episodes(OffloadingProblem(scenario), policy, episodes, seed)


def evaluate(
    policies: Mapping[str, Any] | list[str],
    scenario: Scenario,
    *,
    episodes: int = 16,
    seed: int = 0,
    baseline: str = "opt-ts",
) -> Evaluation:
    """Plays policies on identical episodes and compares them with a baseline.

    Args:
        policies: by name, or names that `make_policy` knows.
        scenario: needs a workload and slots.
        episodes: of the evaluation stream. seed: of the arrivals and of the policies that are made here.
        baseline: a name; made and played if it is not among the policies.

    Returns:
        Delays, intervals and ratios to the baseline, with `table()` and `to_dict()`.

    Raises:
        InputError: a policy does not exist or does not fit, or `episodes` is out of range.

    Example:
        >>> scenario = Scenario.load("lad-ts").override(tasks=5, stations=3, slots=4)
        >>> evaluate(["opt-ts", "random"], scenario, episodes=2).results["opt-ts"].ratio
        1.0
    """
    return Evaluation.of(evaluating.evaluate(OffloadingProblem(scenario), policies, episodes, seed, baseline))


@dataclass(frozen=True)
class Replay:
    """The result of `replay`: a task file played once.

    Args:
        scenario: its name. policy: its name, `recorded` where the file's own decisions were played.
        load: work offered / (capacity x time).
        server: decisions, int64 `[K]`. delay_s: of each task, seconds `[K]`, both in the file's order.

    Example:
        >>> played = Replay("three servers", "recorded", 0.8, torch.tensor([2, 0]).numpy(), torch.ones(2).numpy())
        >>> played.to_dict()["mean_delay_s"]
        1.0
    """

    scenario: str
    policy: str
    load: float
    server: np.ndarray[Any, np.dtype[np.int64]]
    delay_s: np.ndarray[Any, np.dtype[np.float64]]

    def to_dict(self) -> dict[str, Any]:
        """As `replay --json` prints it."""
        d = Delays.of(self.delay_s)
        return {
            "scenario": self.scenario,
            "load": self.load,
            "policy": self.policy,
            "tasks": d.tasks,
            "mean_delay_s": d.mean_delay_s,
            "p50_delay_s": d.p50_delay_s,
            "p95_delay_s": d.p95_delay_s,
            "p99_delay_s": d.p99_delay_s,
            "max_delay_s": d.max_delay_s,
        }


@runtime_checkable
class ToldTasks(Protocol):
    """Is told how a file's tasks come before it decides about them."""

    def told(self, tasks: TaskList) -> AbstractContextManager[None]:
        """While it lasts, it knows."""


@runtime_checkable
class DecidesFiles(Protocol):
    """Decides all of a task file at once, where nothing but queues changes from step to step."""

    def decide_file(self, steps: FileSteps, first: TensorDictBase) -> Ints | None:
        """Servers, int64 `[K]`: those that it would choose step by step; None: it must see every step.

        Args:
            steps: the file. first: what is seen of its first step.
        """


class Recorded(TensorDictModuleBase):
    """Repeats the decisions of a task file."""

    information = "live"

    def __init__(self, server: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        super().__init__()
        self.in_keys = [("agents", "valid"), ("agents", "arrival")]
        self.out_keys = [("agents", "action")]
        self.server, self.done = torch.as_tensor(server), 0

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        valid, arrival = tensordict["agents", "valid"], tensordict["agents", "arrival"]
        known = self.server[(self.done + arrival).clamp_max(len(self.server) - 1)]
        self.done += int(valid.sum())
        return tensordict.set(("agents", "action"), torch.where(valid, known, 0))

    def decide_file(self, steps: FileSteps, first: TensorDictBase) -> Ints:
        """See `DecidesFiles`."""
        decisions: Ints = self.server.numpy()
        return decisions


def replay(
    scenario: Scenario, tasks: TaskList, policy: Decides | None = None, *, name: str = "recorded", seed: int = 0
) -> Replay:
    r"""Plays a file's tasks under a policy, or under their own decisions, with physics in float64.

    Who decides whole files (`DecidesFiles`) does it without an environment, if no server fails and none has measured
    times; the decisions and delays are those of the environment, step by step.

    Args:
        scenario: its servers; its slots are not used, and its workload only by a policy that knows it.
        tasks: the file's tasks. Where each step is one request, a policy with `told` learns how they come.
        policy: None: the column `server` decides.
        name: of the policy, for the report. seed: of the global generators, while a policy plays that draws from them.

    Returns:
        The decision and the delay of each task, and `to_dict()`, what `diffpolicy replay --json` prints.

    Raises:
        InputError: neither a policy nor recorded decisions, the policy does not fit, or a delay is no finite number.

    Example:
        >>> from pathlib import Path
        >>> row = "0,{},2.0,1.0,0.5,10,1\n"
        >>> text = "slot,origin,input_mbit,result_mbit,gcycles_per_step,steps,server\n" + row.format(0) + row.format(1)
        >>> _ = Path("tasks.csv").write_text(text)
        >>> scenario = Scenario(1.0, (Server(2.0, 100.0), Server(5.0, 100.0)))
        >>> replay(scenario, TaskList.read("tasks.csv", scenario, decisions=True)).delay_s.round(2).tolist()
        [1.03, 2.01]
    """
    if policy is None:
        if tasks.server is None:
            raise InputError("the tasks have no recorded decisions, and no policy is given to decide in their place")
        policy = Recorded(tasks.server)
    shown: Any = policy.information if isinstance(policy, ShowsLevel) else "paper"
    env = OffloadingEnv(scenario, [1], information=shown, tasks=tasks, dtype=torch.float64)
    told = policy.told(tasks) if isinstance(policy, ToldTasks) else nullcontext()
    with naming(name), undisturbed(policy, seed), told:
        OffloadingProblem(scenario).check(policy, env)
        server, delay_s = _at_once(env, policy) or _step_by_step(env, policy, tasks)
    if not np.isfinite(delay_s).all():
        raise InputError(f"delays under {name} are too large to be numbers")
    load = float(tasks.work_gcycles.sum() / (scenario.capacity_gcycles_per_s * tasks.duration_s.sum()))
    return Replay(scenario.name, name, load, server, delay_s)


def _at_once(env: OffloadingEnv, policy: Any) -> tuple[Ints, Floats] | None:
    """Decisions and delays `[K]` by pure physics; None where the policy or the file needs the environment."""
    steps = env.file_steps() if isinstance(policy, DecidesFiles) else None
    server = None if steps is None else policy.decide_file(steps, env.observe())
    return None if steps is None or server is None else (server, steps.delays_s(server))


def _step_by_step(env: OffloadingEnv, policy: Any, tasks: TaskList) -> tuple[Ints, Floats]:
    """Decisions and delays `[K]` by the environment."""
    source = env.source
    assert isinstance(source, TaskListSource)
    server, delay_s = np.zeros(len(tasks), dtype=np.int64), np.zeros(len(tasks))
    steps = 0

    def watch(step: TensorDictBase) -> None:
        nonlocal steps
        action, cost = step["agents", "action"], -step["next", "agents", "reward"]
        if TASK in env.observation_spec.keys(True, True):
            valid = step["agents", "valid"]
            rows = step[TASK][valid].numpy()
            server[rows] = action[valid].numpy()
            delay_s[rows] += cost[valid].numpy()
        else:
            rows = source.rows(steps)
            cells = source.cells(steps)
            server[rows], delay_s[rows] = action.flatten()[cells].numpy(), cost.flatten()[cells].numpy()
        steps += 1

    play(env, policy, len(tasks.duration_s), watch=watch)
    return server, delay_s
