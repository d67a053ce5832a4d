"""`FleetState`: a slot's tasks placed one after the other by the law of the price; each sees what those before left.

The counts of a price are always those of now. The coefficients of a server are renewed when it is chosen, and those of
one other server beside it, in turn, where that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from diffpolicy.edge.pricing import law
from diffpolicy.edge.pricing.chains import GatedChain, PriceChain
from diffpolicy.edge.pricing.law import Coefficients, Servers, Terms, Whole


@dataclass(frozen=True)
class Queue:
    """Tasks in the order in which they are placed, K for each of R fleets.

    Args:
        delay_s: of each task on each server if nothing were queued, infinite where it may not go, `[R, K, S]`.
        service_s: seconds that it keeps each server busy, `[R, K, S]`.
        amount: 1 where an entry is a task, 0 where not; between them, the chance that it is one, `[R, K]`.
        turn: share of the slot's tasks that have come after each, `[R, K]`.
        rest: share of the slot's tasks still to come before each, itself among them, `[R, K]`.
        others: order of all servers, int64 `[R, S]`, in which each task renews one beside the chosen; None: none.
        candidates: servers among which each task chooses, int64 `[R, K, C]`; None: all.
    """

    delay_s: Tensor
    service_s: Tensor
    amount: Tensor
    turn: Tensor
    rest: Tensor
    others: Tensor | None = None
    candidates: Tensor | None = None


@dataclass(frozen=True)
class FleetState:
    """R fleets of S servers within a slot.

    Args:
        servers: their loads and waiting tasks move on; the rest stays within a slot. whole: the fleet.
        sent_tasks, sent_work: in this slot, `[R, S]`.
        latent: what is remembered of each server's last price, `[R, S, K]`. terms: of their prices.
        up: bool `[R, S]`. step_s: usual length of a step, seconds. weight: of prices beside own delays.
    """

    servers: Servers
    whole: Whole
    sent_tasks: Tensor
    sent_work: Tensor
    latent: Tensor
    terms: Terms
    up: Tensor
    step_s: float
    weight: float

    @classmethod
    def start(
        cls,
        servers: Servers,
        latent: Tensor,
        up: Tensor,
        coefficients: Coefficients,
        *,
        step_s: float = 1.0,
        weight: float = 1.0,
    ) -> FleetState:
        """Fleets as a slot begins, all prices new; in compiled form where there is one. Args: see the class."""
        whole, zero = Whole.of(servers, up), torch.zeros_like(servers.load)
        state = cls(servers, whole, zero, zero, latent, Terms(zero, zero, zero, zero), up, step_s, weight)
        form = form_of(coefficients, servers.load)
        if form is not None and up.all():
            return form.start(state, coefficients)  # type: ignore[no-any-return]
        backlog = (servers.load / servers.capacity).masked_fill(~up, torch.inf)
        below = (backlog.unsqueeze(-2) < backlog.unsqueeze(-1)).sum(-1)
        seen, x0 = state._chained(servers, latent, below, zero[:, :1], coefficients)
        return replace(state, terms=seen, latent=x0)

    @property
    def fleet_load(self) -> Tensor:
        """Load of all servers that are up, `[R, 1]`."""
        return (self.servers.load * self.up).sum(-1, keepdim=True)

    def _chained(
        self, servers: Servers, latent: Tensor, below: Tensor, turn: Tensor, coefficients: Coefficients
    ) -> tuple[Terms, Tensor]:
        """New terms and latents of some servers."""
        rank = law.rank(below, self.whole.number)
        seen = law.features(servers, self.whole, self.fleet_load, rank, turn, self.step_s).stacked()
        x0 = coefficients(seen.flatten(0, -2), latent.flatten(0, -2)).view(latent.shape)
        new = law.terms(law.coefficients(x0, self.weight), servers, self.whole, self.step_s)
        return new, x0.clamp(-1, 1)

    def prices(self, rest: Tensor, service_s: Tensor) -> Tensor:
        """Of all servers for a task, `[R, S]`; see `law.price`."""
        return law.price(self.terms, rest, self.fleet_load / self.whole.capacity, service_s)

    def at(self, rows: Tensor) -> FleetState:
        """Fleets picked and repeated. Args: rows: `[R']`."""
        return replace(
            self,
            servers=Servers(*(x[rows] for x in self.servers)),
            whole=Whole(*(x[rows] for x in self.whole)),
            sent_tasks=self.sent_tasks[rows],
            sent_work=self.sent_work[rows],
            latent=self.latent[rows],
            terms=Terms(*(x[rows] for x in self.terms)),
            up=self.up[rows],
        )

    @staticmethod
    def joined(states: Sequence[FleetState]) -> FleetState:
        """Fleets of several states of one weight and step, one after the other."""
        first = states[0]

        def joined(parts: Iterable[Tensor]) -> Tensor:
            return torch.cat(list(parts))

        return replace(
            first,
            servers=Servers(*(joined(x) for x in zip(*(s.servers for s in states), strict=True))),
            whole=Whole(*(joined(x) for x in zip(*(s.whole for s in states), strict=True))),
            sent_tasks=joined(s.sent_tasks for s in states),
            sent_work=joined(s.sent_work for s in states),
            latent=joined(s.latent for s in states),
            terms=Terms(*(joined(x) for x in zip(*(s.terms for s in states), strict=True))),
            up=joined(s.up for s in states),
        )

    def place(
        self, queue: Queue, coefficients: Coefficients, *, every: int | None = None
    ) -> tuple[Tensor, FleetState, list[FleetState]]:
        """Places tasks in order, in compiled form where there is one: numba, the CPU, and a chain of the law.

        Args:
            queue: the tasks. coefficients: the network. every: of how many tasks each part has.

        Returns:
            Decisions, int64 `[R, K]`; the state after them; and the states before each part, none without `every`.
        """
        form = form_of(coefficients, self.servers.load)
        if form is not None:
            return form.place(self, queue, coefficients, every)  # type: ignore[no-any-return]
        return self.place_by_law(queue, coefficients, every=every)

    def place_by_law(
        self, queue: Queue, coefficients: Coefficients, *, every: int | None = None
    ) -> tuple[Tensor, FleetState, list[FleetState]]:
        """`place` by the law's own tensors, on any device and of any network."""
        state, parts = self, []
        amount = queue.amount.to(queue.delay_s)
        decisions = torch.zeros(amount.shape, dtype=torch.int64, device=amount.device)
        for k in range(amount.shape[1]):
            if every is not None and k % every == 0:
                parts.append(state)
            decisions[:, k], state = state._placed(queue, k, amount[:, k, None], coefficients)
        return decisions, state, parts

    def _placed(self, queue: Queue, k: int, amount: Tensor, coefficients: Coefficients) -> tuple[Tensor, FleetState]:
        """Where task k goes, and the state after it. Args: amount: of it, `[R, 1]`."""
        service, rest = queue.service_s[:, k], queue.rest[:, k, None]
        s = self.servers
        score = queue.delay_s[:, k] + s.load / s.capacity + service * self.prices(rest, service)
        if queue.candidates is None:
            chosen = score.argmin(-1, keepdim=True)
        else:
            of = queue.candidates[:, k]
            chosen = of.gather(-1, score.gather(-1, of).argmin(-1, keepdim=True))
        work = (service * s.capacity).gather(-1, chosen) * amount
        moved = replace(
            self,
            servers=s._replace(
                load=s.load.scatter_add(-1, chosen, work), waiting=s.waiting.scatter_add(-1, chosen, amount)
            ),
            sent_tasks=self.sent_tasks.scatter_add(-1, chosen, amount),
            sent_work=self.sent_work.scatter_add(-1, chosen, work),
        )
        who = chosen
        if queue.others is not None:
            who = torch.cat([queue.others[:, (k + 1) % s.load.shape[-1], None], chosen], -1)
        return chosen.squeeze(-1), moved._renewed(who, queue.turn[:, k, None], amount > 0, coefficients)

    def _renewed(self, who: Tensor, turn: Tensor, real: Tensor, coefficients: Coefficients) -> FleetState:
        """New prices of some servers. Args: who: int64 `[R, C]`. real: in which fleets a task came, bool `[R, 1]`."""
        s = Servers(*(x.gather(-1, who) for x in self.servers))
        less = self.servers.load.unsqueeze(1) * s.capacity.unsqueeze(-1)
        below = ((less < s.load.unsqueeze(-1) * self.servers.capacity.unsqueeze(1)) & self.up.unsqueeze(1)).sum(-1)
        deep = who.unsqueeze(-1).expand(-1, -1, law.LATENTS)
        old = self.latent.gather(1, deep)
        new, x0 = self._chained(s, old, below, turn, coefficients)
        put = (
            t.scatter(-1, who, torch.where(real, n, t.gather(-1, who))) for t, n in zip(self.terms, new, strict=True)
        )
        latent = self.latent.scatter(1, deep, torch.where(real.unsqueeze(-1), x0, old))
        return replace(self, terms=Terms(*put), latent=latent)


def form_of(coefficients: Coefficients, like: Tensor) -> ModuleType | None:
    """The compiled form where it serves: of a chain of the law in float64, on the CPU. Args: like: where it decides."""
    fits = isinstance(coefficients, PriceChain | GatedChain) and coefficients.compilable and like.device.type == "cpu"
    return compiled_form() if fits else None


@cache
def compiled_form() -> ModuleType | None:
    """The module `compiled_placing`, where numba is installed; it is loaded by the first decision, not before."""
    try:
        from diffpolicy.edge.pricing import compiled_placing
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        return None
    return compiled_placing
