"""`DownTime`: which servers are down, what their failures take back, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffpolicy.edge.physics.resends import RESENDS, Again, InFlight
from diffpolicy.edge.physics.slot_grid import SlotGrid
from diffpolicy.edge.scenario.availability import Availability, Outages
from diffpolicy.edge.workload.seeds import Stream


class DownTime:
    """The outages of a fleet in E environments, and the tasks that they strike; of a fleet without any it does nothing.

    Args:
        servers: the availability of each, S of them.
        seed, stream: as of the arrivals.
        like: `[E, S]`, of the type and device of the environment's tensors.
    """

    def __init__(self, servers: Sequence[Availability | None], seed: int, stream: Stream, like: Tensor) -> None:
        self.left_s = torch.zeros_like(like)
        """Seconds until each server is up again, 0 where it is up, `[E, S]`."""
        self._outages = None if all(x is None for x in servers) else Outages(servers, seed, stream)
        self._flight = InFlight(len(like))
        self._again: Again | None = None

    @property
    def places(self) -> int:
        """Columns that a station's tasks have for those that are sent again."""
        return 0 if self._outages is None else RESENDS

    @property
    def task(self) -> Tensor | None:
        """Number of each task of the present grid in its episode, `[E, B, N]`; None where no server ever fails."""
        return None if self._again is None else self._again.task

    def reseed(self, seed: int) -> None:
        """Draws later outages from another seed."""
        if self._outages is not None:
            self._outages = Outages(self._outages.servers, seed, self._outages.stream)

    def reset(self, environment: int) -> None:
        """Forgets the tasks of an environment."""
        self._flight.reset(environment)

    def find(self, episodes: Sequence[int], clock_s: Tensor, since_s: Tensor | None = None) -> Tensor | None:
        """Finds who is down now, and takes back what failures since then struck.

        Args:
            episodes: of the environments, E of them. clock_s: now, `[E]`. since_s: then, `[E]`; None: nothing has run.

        Returns:
            The servers that have failed since then, bool `[E, S]`; None where none ever does.
        """
        if self._outages is None:
            return None
        down = torch.zeros(self.left_s.shape, dtype=torch.float64)
        struck = torch.zeros(self.left_s.shape, dtype=torch.bool)
        for i, episode in enumerate(episodes):
            now = float(clock_s[i])
            for a, timeline in enumerate(self._outages.of(episode)):
                down[i, a] = timeline.back_s(now) - now
                failure_s = now if since_s is None else timeline.failure_s(float(since_s[i]), now)
                if since_s is not None and failure_s <= now:
                    struck[i, a] = True
                    self._flight.strike(i, a, failure_s)
        self._flight.prune(clock_s.to(self.left_s))
        self.left_s = down.to(self.left_s)
        return struck.to(self.left_s.device)

    def place(self, grid: SlotGrid, clock_s: Tensor) -> SlotGrid:
        """The grid with the tasks that are sent again now. Args: clock_s: `[E]`."""
        if self._outages is None:
            return grid
        grid, self._again = self._flight.place(grid, clock_s.to(self.left_s))
        return grid

    def charge(self, grid: SlotGrid, server: Tensor, delay_s: Tensor, clock_s: Tensor) -> Tensor:
        """Takes note of a step's decisions, and says what they cost: of a task sent again, what is new of its delay.

        Args:
            grid: what `place` gave. server: of each task, `[E, B, N]`. delay_s: from now on, `[E, B, N]`.
            clock_s: now, `[E]`.
        """
        again = self._again
        if again is None:
            return delay_s
        columns = grid.valid.shape[-1] - self.places
        self._flight.depart(grid, again, server, delay_s, clock_s.to(self.left_s), columns)
        return torch.where(grid.valid, delay_s + again.age_s - again.counted_s, 0.0)

    def state(self) -> dict[str, Any]:
        """What must be saved."""
        flight = None if self._outages is None else self._flight.state()
        return {"outage_s": self.left_s.clone(), "in_flight": flight}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
        self.left_s = state["outage_s"].to(self.left_s)
        if self._outages is not None:
            self._flight.restore(state["in_flight"])
