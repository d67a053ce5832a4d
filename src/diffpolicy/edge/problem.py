"""`OffloadingProblem`: a scenario as a problem; which server does each task, so that users wait least."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torchrl.envs import EnvBase

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.env.schedule import schedule_of
from diffpolicy.edge.env.tally import TaskTally
from diffpolicy.edge.env.transitions import task_transitions
from diffpolicy.edge.names import HEURISTIC_NAMES, PRETRAINED_NAMES
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.lad_ts import Workload
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.environments import Cost, Problem, step_transitions
from diffpolicy.environments.problem import Kind, Split
from diffpolicy.environments.schedule import Schedule
from diffpolicy.errors import InputError
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.protocols import ChecksEnv, Decides, ReadsKeys, RemembersAlike, ShowsLevel
from diffpolicy.policies.saving import SavedPolicy

if TYPE_CHECKING:
    from diffpolicy.evaluation.playing import Played

DELAY = Cost("delay", "s", per="item", column="delay_s", counted="tasks")
WORK = ("agents", "work_gcycles")
TASK = ("agents", "task")
BUNDLED = ("pretrained:live", "pretrained:stale")
"""What `compare` plays of the policies that come along."""


def has_numba() -> bool:
    """Whether the learned price can decide in compiled form; it is found, and not loaded yet."""
    return importlib.util.find_spec("numba") is not None


@runtime_checkable
class KnowsScenario(Protocol):
    """What is told the scenario before it decides, such as prices that depend on its workload."""

    def for_scenario(self, scenario: Scenario) -> Decides:
        """The same for a scenario."""


class OffloadingProblem(Problem):
    """The edge-AIGC offloading problem on a scenario; the cost of a task is its service delay in seconds.

    It is that of LAD-TS (arXiv 2412.18212).

    Args:
        scenario: a `Scenario`, a built-in name or a scenario file; to be played it needs a workload and slots.

    Raises:
        InputError: there is no such scenario; when it is played, it has no slots or no workload, or a policy was made
            for another one.

    Example:
        >>> problem = OffloadingProblem("lad-ts")
        >>> problem.make_env(8, seed=1).batch_size, next(iter(problem.rules()))
        (torch.Size([8]), 'opt-ts')
    """

    cost = DELAY
    sound = True
    sequential = True
    methods = ("lad-ts", "d2sac-ts", "sac-ts", "dqn-ts", "lad-ts-plus", "plus-no-chain")
    references = ("capacity-proportional",)
    alike = "episodes of identical arrivals"
    noun, given = "scenario", "a scenario"
    level = "backlog_s"
    place, clock = "server", "time, s"

    def __init__(self, scenario: Scenario | str | Path = "lad-ts") -> None:
        self.scenario = scenario if isinstance(scenario, Scenario) else Scenario.load(scenario)
        self.name = self.scenario.name
        self.steps = self.scenario.slots
        # where no server ever fails all may be chosen always, and a mask would only take time
        self.masks = any(server.availability is not None for server in self.scenario.servers)

    # Environments

    def make_env(
        self, batch: int = 1, seed: int = 0, *, split: Split = "train", view: str | None = None, device: Any = None
    ) -> EnvBase:
        return self._env(batch, seed, split, view, device)

    def make_episodes(
        self, first: int, count: int, seed: int = 0, *, view: str | None = None, device: Any = None
    ) -> EnvBase:
        return self._env(count, seed, "evaluate", view, device, first)

    def _env(self, batch: int, seed: int, split: Split, view: str | None, device: Any, first: int = 0) -> OffloadingEnv:
        """Its lanes have streams of their own; policies are judged in float64, as the physics is defined."""
        if self.steps is None:
            raise InputError(f"scenario {self.name} has no 'slots', so an episode has no end; give it some")
        judged = split == "evaluate"
        return OffloadingEnv(
            self.scenario,
            [batch],
            seed,
            information=view or "paper",  # type: ignore[arg-type]
            stream=Stream.EVALUATION if judged else Stream.TRAINING,
            dtype=torch.float64 if judged else torch.float32,
            device=device,
            first_episode=first,
        )

    def transitions(self, rollout: TensorDictBase, keys: Keys) -> TensorDict:
        """From task to task of a station, see `task_transitions`; from slot to slot where a slot is one decision."""
        if keys.action.items:
            return step_transitions(rollout, keys)
        return task_transitions(rollout, masks=keys.mask is not None)

    def tally(self, keys: Keys) -> TaskTally:
        return TaskTally(self.cost, keys.reward, keys.valid)

    # Policies

    def rules(self) -> Mapping[str, Callable[[int], Decides]]:
        """The untrained rules. `local` says itself where a task's origin has no server."""
        return {name: functools.partial(self._rule, name) for name in HEURISTIC_NAMES}

    def compared_rules(self) -> Sequence[str]:
        """Those that can decide the scenario's tasks: `local` needs a server at each station."""
        return [name for name in HEURISTIC_NAMES if name != "local" or None not in self.scenario.stations]

    def _rule(self, name: str, seed: int) -> Decides:
        from diffpolicy.edge.rules.registry import HEURISTICS

        stations, servers = len(self.scenario.stations), len(self.scenario.servers)
        return self.prepare(HEURISTICS[name](stations, servers, seed=seed, measured=self.scenario.measured))

    def policies(self) -> Mapping[str, Callable[[int], Decides]]:
        return {name: functools.partial(self._bundled, name) for name in PRETRAINED_NAMES}

    def _bundled(self, name: str, seed: int) -> Decides:
        from diffpolicy.edge.pricing.bundled import load_bundled

        policy = load_bundled(name)
        policy.generator.manual_seed(seed)
        return self.prepare(policy)

    def prepare(self, policy: Decides) -> Decides:
        """A policy or rule that is to know the scenario is told it."""
        return policy.for_scenario(self.scenario) if isinstance(policy, KnowsScenario) else policy

    def compared(self) -> Sequence[str]:
        """Two of the bundled policies; none without numba, since `compare` has minutes and they would take as many."""
        return BUNDLED if has_numba() else ()

    def left_out(self) -> str:
        if has_numba():
            return ""
        names = " and ".join(BUNDLED)
        return (
            f"{names} are left out, since they are slow without numba; to include them: pip install -c "
            "constraints.txt '.[fleet]'"
        )

    @property
    def subject(self) -> Scenario:
        return self.scenario

    def view(self, policy: Decides) -> str:
        return policy.information if isinstance(policy, ShowsLevel) else "paper"

    # Evaluations

    def check(self, policy: Decides, env: EnvBase) -> None:
        """Refuses a policy that was made for another shape, or reads what its level of information hides."""
        if isinstance(policy, SavedPolicy):
            with self._of_another(policy):
                self._check_servers(policy)
                policy.check_env(env)
            return
        if isinstance(policy, ChecksEnv):
            policy.check_env(env)
            return
        primed = {"turn", "credit", "latent"}
        known = set(env.observation_spec.keys(True, True))
        if isinstance(policy, RemembersAlike):
            return
        for key in policy.in_keys if isinstance(policy, ReadsKeys) else []:
            last = key[-1] if isinstance(key, tuple) else key
            if key not in known and last not in primed:
                level = env.information  # an OffloadingEnv's
                raise InputError(f"the policy reads {key!r}, which its level of information, {level}, does not include")

    def _check_servers(self, policy: SavedPolicy) -> None:
        """Refuses a policy that was trained for another number of servers."""
        servers, head = len(self.scenario.servers), getattr(policy, "head", None)
        ours = "scenario" in policy.trained or policy.trained.get("problem") == self.name.rsplit(os.sep, 1)[-1]
        if not ours or not isinstance(head, CategoricalHead) or head.choices == servers:
            return
        raise InputError(
            f"the policy was made for {head.choices} servers, and scenario {self.scenario.name} has {servers}; it "
            f"works only for that number: play it on {head.choices} servers, such as lad-ts with --stations "
            f"{head.choices}, or train it for these"
        )

    def check_episodes(self, episodes: int) -> None:
        workload = self.scenario.workload
        cells = (
            {"stations": len(self.scenario.stations), "tasks": workload.max_tasks}
            if isinstance(workload, Workload)
            else {}
        )
        counts = {"episodes": episodes, "slots": self.steps or 1, **cells}
        check.product(counts, _limits.PLAYED, "the tasks of an evaluation")

    def notes(self, env: EnvBase) -> Sequence[NestedKey]:
        """The work of each task, and its number where tasks are sent again."""
        return [WORK, TASK] if TASK in env.observation_spec.keys(True, True) else [WORK]

    def counts(self, played: Played) -> Played:
        """One cost a task: what each of its sendings cost, added up."""
        if str(TASK) not in played.notes:
            return played
        task = np.stack([played.episode, played.notes[str(TASK)].astype(np.int64)])
        _, first, index = np.unique(task, axis=1, return_index=True, return_inverse=True)
        order = np.argsort(first)
        cost = np.bincount(index.reshape(-1), played.cost).astype(np.float64)[order]
        rows = first[order]
        work = {str(WORK): played.notes[str(WORK)][rows]}
        return replace(played, cost=cost, episode=played.episode[rows], notes=work)

    def summarise(self, played: Played, episodes: int) -> Mapping[str, float]:
        """The load: work offered / (capacity x time) of what was played; in continuous time what is offered."""
        if not isinstance(self.scenario.workload, Workload):
            return {"load": self.scenario.load_factor()}
        time_s = self.scenario.slot_s * (self.steps or 0) * episodes
        offered = float(played.notes[str(WORK)].sum())
        return {"load": offered / (self.scenario.capacity_gcycles_per_s * time_s)}

    def breakdowns(self) -> Mapping[str, tuple[str, str]]:
        """Who waits how long: by the work of a task."""
        return {"delay_by_size": (str(WORK), "work_gcycles")}

    def levels(self, step: TensorDictBase) -> torch.Tensor:
        """The backlog of each server, in seconds of its own work."""
        capacity = torch.tensor([server.capacity_gcycles_per_s for server in self.scenario.servers])
        backlog: torch.Tensor = step["queue_gcycles"] / capacity
        return backlog

    def schedule(self, env: EnvBase) -> Callable[[TensorDictBase], Schedule] | None:
        """Which server computes a task when; where servers fail a task may be computed in vain, so then nothing."""
        return None if self.masks or not isinstance(env, OffloadingEnv) else schedule_of(env)

    def knobs(self) -> Mapping[str, Kind]:
        """Those of the paper, by the draws of the released code."""
        return {"tasks": "whole", "stations": "whole", "slots": "whole", "capacity": "LO:HI", "steps": "LO:HI"}

    def vary(self, key: str, value: Any) -> OffloadingProblem:
        return OffloadingProblem(self.scenario.override(**{key: value}))

    def told(self) -> str:
        return f"{self.name}, load {self.scenario.load_factor():.2f}"

    def description(self) -> dict[str, Any]:
        return {"scenario": self.scenario.digest()}

    def digest(self) -> str:
        return self.scenario.digest()
