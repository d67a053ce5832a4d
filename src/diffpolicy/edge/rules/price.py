"""The learned price as a rule: own delay plus what a task costs those behind it, by one forward pass of a network."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar

from tensordict import TensorDictBase
from torch import Tensor

from diffpolicy._types import Ints
from diffpolicy.edge.physics.file_steps import FileSteps
from diffpolicy.edge.pricing.slot import READS
from diffpolicy.edge.rules.rule import SERVICE, Heuristic
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.task_file import TaskList
from diffpolicy.policies.recurrent import RecurrentState


class Price(Heuristic):
    """Smallest own delay plus (seconds that the task keeps the server busy) x (the server's price), in arrival order.

    Its parameters are bundled; `diffpolicy train-fleet price --out DIR` trains them again. They
    serve any fleet. It has no chain and no latent memory: it is the network of `FleetPolicy` applied once.
    """

    name, information = "price", "live"
    reads: ClassVar = [*READS, ("agents", "arrival")]

    def __init__(self, stations: int, servers: int, seed: int = 0, *, measured: bool = False) -> None:
        super().__init__(stations, servers, seed, measured=measured)
        from diffpolicy.edge.pricing.bundled import load_bundled

        self.policy = load_bundled("price")
        if measured and SERVICE not in self.in_keys:
            self.in_keys.append(SERVICE)

    def for_scenario(self, scenario: Scenario) -> Price:
        """The rule itself, told the usual length of a step and the law of arrivals."""
        self.policy.for_scenario(scenario)
        return self

    def told(self, tasks: TaskList) -> AbstractContextManager[None]:
        """See `FleetPolicy.told`."""
        return self.policy.told(tasks)

    def decide(self, td: TensorDictBase) -> Tensor:
        return self.policy.decide(td, self.generator)

    def decide_file(self, steps: FileSteps, first: TensorDictBase) -> Ints | None:
        """See `FleetRule.decide_file`."""
        return self.policy.decide_file(steps, first) if type(self) is Price else None

    def make_tensordict_primer(self) -> RecurrentState:
        """The recurrent keys `("fleet", ...)`."""
        return self.policy.rule.primer(self.servers)
