"""`SizeTable`: chances that depend on a task's work alone, and works that cut a scenario's tasks into equal bins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchrl.envs import EnvBase
from typing_extensions import Unpack

from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.lad_ts import Workload
from diffpolicy.errors import InputError
from diffpolicy.policies.options import ChoiceOptions, SpecOptions
from diffpolicy.policies.policy import Policy


class SizeTableOptions(SpecOptions, total=False):
    """Arguments of `SizeTable.from_specs`."""

    edges: Sequence[float]


class SizeTable(Policy):
    """softmax of a row of a table, chosen by the task's work alone: the simplest policy that separates sizes.

    It reads no queue, so nothing about it is ever stale.

    Args:
        edges: works between which the table's rows change, increasing, Gcycles `[bins - 1]`; see `size_edges`.
        others: of `Policy`.
    """

    edges: Tensor

    def __init__(self, *, edges: Sequence[float], **others: Unpack[ChoiceOptions]) -> None:
        others["agents"], others["normalize"] = None, False
        super().__init__(**others)
        if any(a >= b for a, b in zip(edges, edges[1:], strict=False)):
            raise InputError(f"edges must increase, got {list(edges)}")
        self.register_buffer("edges", torch.tensor([float(x) for x in edges]))
        self.table = nn.Parameter(torch.zeros(len(edges) + 1, self.choices))

    @classmethod
    def from_specs(cls, env: EnvBase, **options: Unpack[SizeTableOptions]) -> SizeTable:
        """A table for an environment. Args: env: tells its keys. options: edges, and of `Policy.from_specs`."""
        return cls._from_specs(env, options)

    def output(self, condition: Tensor, latent: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        return self.table[torch.bucketize(condition[..., 1].detach().contiguous(), self.edges)]

    def config(self) -> dict[str, Any]:
        return {**super().config(), "edges": self.edges.tolist(), "head": self.head.to_dict()}


def size_edges(scenario: Scenario, bins: int) -> list[float]:
    """Works that cut a scenario's tasks into bins of about equal numbers of tasks, Gcycles, at most `bins - 1`.

    Args:
        scenario: its workload must be of kind `lad-ts`. bins: at least 1.
    """
    workload = scenario.workload
    if not isinstance(workload, Workload):
        raise InputError(f"scenario {scenario.name} has no table of works; give the edges yourself")
    if bins < 1:
        raise InputError(f"bins must be at least 1, got {bins}")
    lo, hi = workload.tasks_per_station_and_slot
    work = np.array(workload.gcycles_per_step[:hi]) * np.array(workload.steps[:hi])
    chance = np.array([np.mean(np.arange(lo, hi + 1) > n) for n in range(hi)])
    order = np.argsort(work, kind="stable")
    share = chance[order].cumsum() / chance.sum()
    cuts = np.searchsorted(share, np.arange(1, bins) / bins)
    middles = (work[order][:-1] + work[order][1:]) / 2
    return sorted({float(middles[min(k, hi - 2)]) for k in cuts} if hi > 1 else set())
