"""`Heuristic`: a rule with the tensordict interface of a learned policy."""

from __future__ import annotations

from typing import ClassVar

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy.edge.information import Information
from diffpolicy.policies.draws import Draws, outside_graphs
from diffpolicy.policies.finite import refuse_infinite

ACTION: NestedKey = ("agents", "action")
VALID: NestedKey = ("agents", "valid")
SERVICE: NestedKey = ("agents", "service_s")


class Heuristic(TensorDictModuleBase):
    """A rule `decide(tensordict) -> servers`; what it draws comes from its own generator.

    Args:
        stations: their number, B. servers: their number, S. seed: of the generator.
        measured: whether servers have measured times, which rules that weigh costs then read.

    Example:
        >>> class AlwaysTheFirst(Heuristic):
        ...     name, reads = "first", [("agents", "valid")]
        ...     def decide(self, td):
        ...         return torch.zeros_like(td["agents", "valid"], dtype=torch.int64)
        >>> scenario = Scenario.load("lad-ts").override(tasks=5, stations=3, slots=4)
        >>> rule = AlwaysTheFirst(stations=3, servers=3)
        >>> evaluate({"first": rule}, scenario, episodes=1).results["first"].ratio > 1
        True
    """

    name: ClassVar[str]
    information: ClassVar[Information] = "stale"
    reads: ClassVar[list[NestedKey]]

    def __init__(self, stations: int, servers: int, seed: int = 0, *, measured: bool = False) -> None:
        super().__init__()
        weighs = measured and ("agents", "result_mbit") in self.reads
        self.in_keys = [*self.reads, *([SERVICE] if weighs else [])]
        self.out_keys = [ACTION]
        self.stations, self.servers = stations, servers
        self.generator = Draws(seed)

    def decide(self, td: TensorDictBase) -> Tensor:
        """Servers for the tasks of the slot.

        Args:
            td: what the environment shows at the rule's level of `information`, batch `[E]`.

        Returns:
            int64 `[E, B, N]`; entries that are not valid mean nothing.
        """
        raise NotImplementedError

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        refuse_infinite(tensordict, self.in_keys, VALID)
        return tensordict.set(ACTION, self.decide(tensordict))

    def uniform(self, *shape: int) -> Tensor:
        """U[0, 1) from the rule's own generator.

        Args:
            shape: sizes of the tensor.
        """
        drawn: Tensor = outside_graphs(torch.rand, *shape, generator=self.generator, device=self.generator.device)
        return drawn
