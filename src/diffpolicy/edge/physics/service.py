"""Service models: how long a task takes on a server in its present state.

The paper's linear law, work / capacity, is the default and needs nothing of this file. `MeasuredService` takes times
from tables instead, as `diffpolicy calibrate` writes them, and knows that a server must load a model before it can run
it, that the first load after a start takes longer, that like requests may share a batch, and that no two runs take
exactly the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpolicy._types import Floats
from diffpolicy.edge.physics.queueing import ServerSpeeds
from diffpolicy.edge.scenario.service_times import ServerService

NOTHING = -1
"""In place of a model or a kind: none."""


@dataclass(frozen=True)
class Measured:
    """What a measured service model knows of tasks, of any shape `*`, beside their work.

    Args:
        base_s: expected seconds on each server if the model is loaded, `[*, S]`.
        model: index of the model, int64 `[*]`. kind: like requests have like numbers, int64 `[*]`.
        images: `[*]`, as a real number.
        luck: standard normal of the run, `[*]`.
    """

    base_s: Tensor
    model: Tensor
    kind: Tensor
    images: Tensor
    luck: Tensor


@dataclass(frozen=True)
class ServiceState:
    """What servers are doing, `[E, S]` each.

    Args:
        loaded: model of the last task in the queue, -1 for none yet.
        kind, images: of the last batch in the queue, -1 and 0 for none.
        begins_s: seconds until that batch begins, not positive once it has begun.
    """

    loaded: Tensor
    kind: Tensor
    images: Tensor
    begins_s: Tensor

    @classmethod
    def fresh(cls, environments: int, servers: int, dtype: torch.dtype, device: Any = None) -> ServiceState:
        """Nothing loaded, nothing queued."""
        none = torch.full((environments, servers), NOTHING, dtype=torch.int64, device=device)
        zero = torch.zeros(environments, servers, dtype=dtype, device=device)
        return cls(none, none.clone(), zero, zero.clone())

    def later(self, duration_s: Tensor) -> ServiceState:
        """The state after some seconds `[E, 1]`."""
        return replace(self, begins_s=self.begins_s - duration_s)

    def where(self, keep: Tensor) -> ServiceState:
        """This state where `keep`, bool `[E, S]` or `[E, 1]`, and a fresh one elsewhere."""
        return ServiceState(
            self.loaded.masked_fill(~keep, NOTHING),
            self.kind.masked_fill(~keep, NOTHING),
            self.images.masked_fill(~keep, 0),
            self.begins_s.masked_fill(~keep, 0),
        )


class MeasuredService:
    """The measured tables of a fleet as tensors, and the slot's physics under them.

    Args:
        servers: S of them. models: the names that tasks may have, in the order of their numbers.
        dtype, device: of real tensors.
    """

    def __init__(
        self, servers: Sequence[ServerService], models: Sequence[str], dtype: torch.dtype, device: Any = None
    ) -> None:
        self.servers, self.models = list(servers), list(models)
        like: dict[str, Any] = {"dtype": dtype, "device": device}
        self.switch_s = torch.tensor([s.switch_s for s in servers], **like)
        self.cold_s = torch.tensor([s.cold_s for s in servers], **like)
        self.scatter = torch.tensor([s.scatter for s in servers], **like)
        longest = max(len(s.batch) for s in servers)
        self.longest = torch.tensor([len(s.batch) for s in servers], device=device)
        self.joins_up_to = torch.tensor([len(s.batch) if s.joins else 0 for s in servers], device=device)
        # time of a batch of 0, 1, ... images over that of one image; a server that batches less repeats its last
        self.batch_time = torch.tensor(
            [[0.0, *(s.batch_factor(np.array([float(j)]))[0] for j in range(1, longest + 1))] for s in servers], **like
        )

    def base_s(self, model: Any, megapixels: Floats, steps: Floats, images: Floats) -> Floats:
        """Expected seconds of requests on each server, its model loaded, `[K, S]`. Args: model: numbers `[K]`."""
        result = np.empty((len(steps), len(self.servers)))
        for m in np.unique(model):
            of = np.flatnonzero(model == m)
            for a, server in enumerate(self.servers):
                result[of, a] = server.seconds(self.models[m], megapixels[of], steps[of], images[of])
        return result

    def present_s(self, tasks: Measured, state: ServiceState) -> Tensor:
        """Expected seconds on each server as it is, loading included, `[E, *, S]`. Args: tasks: of `[E, *]`."""
        extra = tasks.model.ndim - 1

        def wide(x: Tensor) -> Tensor:
            return x.view(x.shape[0], *[1] * extra, x.shape[-1])

        model, kind = tasks.model.unsqueeze(-1), tasks.kind.unsqueeze(-1)
        loaded, images = wide(state.loaded), tasks.images.unsqueeze(-1)
        load_s = torch.where(loaded == NOTHING, self.cold_s, self.switch_s)
        load_s = torch.where((loaded == model) | (model == NOTHING), torch.zeros_like(load_s), load_s)
        seconds = tasks.base_s + load_s
        if not self.joins_up_to.any():
            return seconds
        ahead = wide(state.images)
        joins = (wide(state.kind) == kind) & (kind != NOTHING) & (wide(state.begins_s) > 0)
        joins = joins & (ahead + images <= self.joins_up_to)
        more = self._factor(ahead + images) - self._factor(ahead)
        joined = tasks.base_s * more / self._factor(images.expand_as(joins)).clamp_min(1e-12)
        return torch.where(joins, joined, seconds)

    def _factor(self, images: Tensor) -> Tensor:
        """`batch_time` at counts of images `[*, S]`; past its end it repeats."""
        longest, count = self.longest, images.long()
        whole, rest = count // longest, count % longest
        table = self.batch_time.expand(*count.shape[:-1], *self.batch_time.shape)
        last = table.gather(-1, longest.expand(count.shape).unsqueeze(-1)).squeeze(-1)
        return whole * last + table.gather(-1, rest.unsqueeze(-1)).squeeze(-1)

    def play(
        self,
        server: Tensor,
        tasks: Measured,
        valid: Tensor,
        queue_gcycles: Tensor,
        state: ServiceState,
        fleet: ServerSpeeds,
    ) -> tuple[Tensor, Tensor, ServiceState]:
        """A slot's tasks, one after the other.

        Args:
            server: decisions, int64 `[E, K]`. tasks: of `[E, K]`. valid: bool `[E, K]`.
            queue_gcycles: q at the start of the slot, `[E, S]`. state: at the start of the slot.
            fleet: the servers.

        Returns:
            Seconds from arrival to the end of the computation `[E, K]`, work sent to each server `[E, S]`, the state.
        """
        f = fleet.capacity_gcycles_per_s
        backlog_s = queue_gcycles / f
        start_s = backlog_s
        through = torch.zeros_like(tasks.luck)
        loaded, kinds, images, begins_s = state.loaded, state.kind, state.images, state.begins_s
        for k in range(server.shape[-1]):
            one = Measured(*(getattr(tasks, x.name)[:, k] for x in fields(Measured)))
            state = ServiceState(loaded, kinds, images, begins_s)
            a, real = server[:, k : k + 1], valid[:, k : k + 1]
            expected = self.present_s(one, state).gather(-1, a)
            run_s = expected * (self.scatter[a] * one.luck.unsqueeze(-1)).exp() * real
            before = backlog_s.gather(-1, a)
            kind, count = one.kind.unsqueeze(-1), one.images.unsqueeze(-1)
            queued = images.gather(-1, a)
            joins = (kinds.gather(-1, a) == kind) & (kind != NOTHING) & (begins_s.gather(-1, a) > 0)
            joins = joins & (queued + count <= self.joins_up_to[a])
            through[:, k] = (before + run_s).squeeze(-1)
            backlog_s = backlog_s.scatter_add(-1, a, run_s)
            begins_s = begins_s.scatter(-1, a, torch.where(real & ~joins, before, begins_s.gather(-1, a)))
            images = images.scatter(-1, a, torch.where(real, torch.where(joins, queued + count, count), queued))
            kinds = kinds.scatter(-1, a, torch.where(real, kind, kinds.gather(-1, a)))
            model = one.model.unsqueeze(-1)
            loaded = loaded.scatter(-1, a, torch.where(real & (model != NOTHING), model, loaded.gather(-1, a)))
        return through, (backlog_s - start_s) * f, ServiceState(loaded, kinds, images, begins_s)
