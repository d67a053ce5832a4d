"""Tasks on their way: what an outage takes back, and how it comes to its station again."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from diffpolicy.edge.physics.service import Measured
from diffpolicy.edge.physics.slot_grid import SlotGrid

RESENDS = 8
"""Tasks that a station can send again in one step; more wait for the next step."""


@dataclass(frozen=True)
class Again:
    """What is known of the tasks on a grid beside their sizes, `[E, B, N]` each.

    Args:
        task: number of the task in its episode; who is sent again keeps it.
        age_s: seconds since the task first arrived.
        counted_s: delay that has been charged for it so far.
    """

    task: Tensor
    age_s: Tensor
    counted_s: Tensor


class InFlight:
    """The tasks that servers have not finished yet, and those that wait to be sent again, of E environments.

    Args:
        environments: their number, E.
    """

    def __init__(self, environments: int) -> None:
        self.flying: TensorDict | None = None
        self.waiting: TensorDict | None = None
        self.count = [0] * environments

    def reset(self, environment: int) -> None:
        """Forgets everything of an environment."""
        self.count[environment] = 0
        self.flying, self.waiting = (
            None if x is None else x[x["environment"] != environment] for x in (self.flying, self.waiting)
        )

    def strike(self, environment: int, server: int, at_s: float) -> None:
        """A server fails: what it has not delivered by then waits to be sent again."""
        if self.flying is None:
            return
        lost = (self.flying["environment"] == environment) & (self.flying["server"] == server)
        lost = lost & (self.flying["until_s"] > at_s)
        if lost.any():
            gone = self.flying[lost]
            self.waiting = gone if self.waiting is None else torch.cat([self.waiting, gone])
            self.flying = self.flying[~lost]

    def prune(self, clock_s: Tensor) -> None:
        """Forgets what has been delivered. Args: clock_s: `[E]`."""
        if self.flying is not None:
            self.flying = self.flying[self.flying["until_s"] > clock_s[self.flying["environment"]]]

    def place(self, grid: SlotGrid, clock_s: Tensor) -> tuple[SlotGrid, Again]:
        """The step's grid with `RESENDS` further places for each station, the waiting tasks on them, first in order."""
        e, b, n = grid.valid.shape
        wide = n + RESENDS
        rank = torch.arange(grid.order.shape[1], device=grid.order.device).expand_as(grid.order)
        arrival = torch.zeros(e, b * n, dtype=torch.int64, device=rank.device).scatter(1, grid.order, rank)
        arrival = arrival.view(e, b, n)
        first = torch.tensor(self.count, device=rank.device).view(e, 1, 1)
        rows = self._seats(b, n)

        def put(x: Tensor, name: str | None = None, fill: float = 0) -> Tensor:
            """Widens `[E, B, N, ...]`, and seats what waits."""
            result = x.new_full((e, b, wide, *x.shape[3:]), fill)
            result[:, :, :n] = x
            if rows is not None and name is not None:
                assert self.waiting is not None
                at, cells = rows
                result[cells] = self.waiting[name][at].to(x.dtype)
            return result

        valid = put(grid.valid)
        if rows is not None:
            valid[rows[1]] = True
        key = put(arrival + e * b * wide)
        if rows is not None:
            key[rows[1]] = torch.arange(len(rows[0]), device=key.device)
        key = torch.where(valid, key, 2**40)
        order = key.flatten(1).argsort(dim=1, stable=True)[:, : int(valid.flatten(1).sum(-1).max())]
        measured = grid.measured
        if measured is not None:
            measured = Measured(*(put(getattr(measured, f.name), f.name) for f in fields(Measured)))
        seated = replace(
            grid,
            home=put(grid.home, "home", fill=-1),
            input_mbit=put(grid.input_mbit, "input_mbit"),
            result_mbit=put(grid.result_mbit, "result_mbit"),
            work_gcycles=put(grid.work_gcycles, "work_gcycles"),
            valid=valid,
            order=order,
            measured=measured,
        )
        born = put(clock_s.view(e, 1, 1).expand(e, b, n), "born_s")
        age = torch.where(valid, clock_s.view(e, 1, 1) - born, 0)
        again = Again(put(first + arrival, "task"), age, put(torch.zeros_like(grid.input_mbit), "counted_s"))
        return seated, again

    def _seats(self, stations: int, columns: int) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]] | None:
        """Which of those that wait are sent again now, and their cells on the wide grid."""
        if self.waiting is None or not len(self.waiting):
            return None
        taken: dict[tuple[int, int], int] = {}
        at, cells = [], []
        pairs = zip(self.waiting["environment"].tolist(), self.waiting["station"].tolist(), strict=True)
        for row, pair in enumerate(pairs):
            place = taken.get(pair, 0)
            if place < RESENDS:
                taken[pair] = place + 1
                at.append(row)
                cells.append((*pair, columns + place))
        e, b, n = torch.tensor(cells).T
        return torch.tensor(at), (e, b, n)

    def depart(
        self, grid: SlotGrid, again: Again, server: Tensor, delay_s: Tensor, clock_s: Tensor, columns: int
    ) -> None:
        """Takes note of a step's decisions.

        Args:
            grid, again: what `place` gave. server: `[E, B, N]`. delay_s: of the decisions, `[E, B, N]`.
            clock_s: when they were taken, `[E]`. columns: N without the further places.
        """
        seats = self._seats(grid.valid.shape[1], columns)
        if seats is not None and self.waiting is not None:
            keep = torch.ones(len(self.waiting), dtype=torch.bool)
            keep[seats[0]] = False
            self.waiting = self.waiting[keep]
        e, b, n = grid.valid.nonzero(as_tuple=True)
        now = clock_s[e]
        values: dict[str, Any] = {
            "environment": e,
            "station": b,
            "server": server[e, b, n],
            "home": grid.home[e, b, n],
            "input_mbit": grid.input_mbit[e, b, n],
            "result_mbit": grid.result_mbit[e, b, n],
            "work_gcycles": grid.work_gcycles[e, b, n],
            "task": again.task[e, b, n],
            "born_s": now - again.age_s[e, b, n],
            "counted_s": again.age_s[e, b, n] + delay_s[e, b, n],
            "until_s": now + delay_s[e, b, n],
        }
        if grid.measured is not None:
            values |= {f.name: getattr(grid.measured, f.name)[e, b, n] for f in fields(Measured)}
        sent = TensorDict(values, batch_size=[len(e)])
        self.flying = sent if self.flying is None else torch.cat([self.flying, sent])
        fresh = torch.bincount(e[n < columns], minlength=len(self.count))
        self.count = [c + int(new) for c, new in zip(self.count, fresh, strict=True)]

    def state(self) -> dict[str, Any]:
        """What must be saved."""
        both = {"flying": self.flying, "waiting": self.waiting}
        return {"count": list(self.count), **{k: None if v is None else v.to_dict() for k, v in both.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
        self.count = list(state["count"])
        self.flying, self.waiting = (
            None if state[k] is None else TensorDict(state[k], batch_size=[len(state[k]["task"])])
            for k in ("flying", "waiting")
        )
