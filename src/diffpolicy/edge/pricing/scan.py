"""Tasks placed one after the other by own delay plus price.

score(i, a) = delay of task i on a now + s_ia * price_ia, s_ia being the seconds that i keeps a busy; the smallest wins.
A price counts the tasks that will wait behind (see `docs/deciding.md`): the sum of five counts with coefficients from
a network. The counts are always those of now; the coefficients of a server are renewed when it is chosen, and those of
one other server beside it, in turn, where a scan is asked to.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from diffpolicy.edge.pricing.features import BIAS, CEILING, LATENTS, SCALE

Coefficients = Callable[[Tensor, Tensor], Tensor]
"""`(features [R, F], latents [R, K]) -> x_0 [R, K]`: the network, or the chain."""

LOAD, WAITING, TASKS, WORK, PRICE = range(5)
"""First columns of `FleetState.servers`: queue and work sent in this slot; tasks that wait; tasks and work sent in this
slot; the terms of the price, see `FleetState.terms`; then"""
TERMS = 4
LATENT = PRICE + TERMS
"""the K latents, and what does not change within a slot:"""
CAPACITY, RATE_N, RATE_W, RANK, STATIC = (LATENT + LATENTS + i for i in range(5))
"""capacity; moving averages of tasks and of work a slot; the capacity's rank; the features that follow from them."""
_ORDER = (6, 7, 9, 0, 1, 12, 2, 3, 4, 13, 8, 5, 10, 11)
"""Where each of the F features stands among the parts that `features` puts side by side."""


def totals(servers: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Servers that are up, their capacity, and the means of their tasks and of their work of a slot, `[R, 1]` each."""
    here = up.to(servers)
    count = here.sum(-1, keepdim=True)
    f, n, w = ((servers[..., i] * here).sum(-1, keepdim=True) for i in (CAPACITY, RATE_N, RATE_W))
    return count, f, n / count, w / count


@dataclass
class FleetState:
    """R fleets of S servers within a slot.

    Args:
        servers: `[R, S, C]`, see the columns above; without the features, which are appended.
        up: bool `[R, S]`.
        fleet_work: load of all servers that are up, `[R, 1]`.
        step_s: usual length of a step, seconds; a decision that is traced gives it as a tensor `[1]`.
        weight: of prices beside own delays.
        totals: of the whole fleet (see `totals`), where the servers given are only some of it.
    """

    servers: Tensor
    up: Tensor
    fleet_work: Tensor
    step_s: float | Tensor
    weight: float = 1.0
    totals: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        x = self.servers
        known = totals(x, self.up) if self.totals is None else self.totals
        self.count, self.total_f, mean_n, mean_w = known
        mean_f, self.mean_n, mean_w = self.total_f / self.count, mean_n.clamp_min(1e-9), mean_w.clamp_min(1e-12)
        self.mean_s = mean_w / self.mean_n / mean_f
        load = mean_w * self.count / (self.total_f * self.step_s)
        self.bias = torch.tensor(BIAS, dtype=x.dtype, device=x.device)
        self.order = torch.tensor(_ORDER, device=x.device)
        n, w = x[..., RATE_N] + 0.1 * self.mean_n, x[..., RATE_W] + 0.1 * mean_w
        static = [
            torch.log(x[..., CAPACITY] / mean_f),
            x[..., RANK],
            torch.log(n / (1.1 * self.mean_n)),
            torch.log(w / n * self.mean_n / mean_w),
            (load - 1).clamp(-1, 2).expand_as(n),
            0.25 * torch.log1p(self.mean_n).expand_as(n),
        ]
        self.servers = torch.cat([x, torch.stack(static, -1)], -1)

    def at(self, rows: Tensor, servers: Tensor) -> FleetState:
        """Fleets picked and repeated. Args: rows: `[R']`. servers: all of their servers' columns, `[R', S, C]`."""
        other = copy.copy(self)
        for name in ("count", "total_f", "mean_n", "mean_s", "up"):
            setattr(other, name, getattr(self, name)[rows])
        other.servers = servers
        other.fleet_work = (servers[..., LOAD] * other.up).sum(-1, keepdim=True)
        return other

    def features(self, row: Tensor, below: Tensor, turn: Tensor) -> Tensor:
        """What the network reads of servers, `[R, S', F]`: no seconds, no number of servers, no clock.

        In order: backlog and the fleet's, in services (logarithms that saturate); their difference over their sum;
        capacity over the mean (logarithm) and its rank; the backlog's rank; share of the fleet's tasks and mean work of
        a task (logarithms); load; share of the slot's tasks that have come; tasks that wait (likewise saturating), and
        tasks of a slot and server (logarithm); saturations of the fleet's and the server's backlog over a step.

        Args:
            row: the servers' columns, `[R, S', C]`. below: servers with less backlog, `[R, S']`.
            turn: share of the slot's tasks that have come, `[R, 1]`.
        """
        backlog = row[..., LOAD] / row[..., CAPACITY]
        fleet = (self.fleet_work / self.total_f).expand_as(backlog)
        many = torch.stack([backlog / self.mean_s, fleet / self.mean_s, row[..., WAITING]], -1)
        logs = 0.25 * ((1 + many) / (1 + many / CEILING)).log()
        both = torch.stack([fleet, backlog], -1)
        others = [
            (backlog - fleet) / (backlog + fleet + self.mean_s),
            2 * (below + 0.5) / self.count - 1,
            turn.expand_as(backlog),
        ]
        parts = [row[..., STATIC:], logs, others[0].unsqueeze(-1), both / (both + self.step_s)]
        return torch.cat([*parts, torch.stack(others[1:], -1)], -1).index_select(-1, self.order)

    def terms(self, row: Tensor, x0: Tensor) -> Tensor:
        """A price as a function of what changes from task to task, `[R, S', 4]`; see `price`.

        Args:
            row: the servers' columns. x0: `[R, S', K]`.
        """
        n, m = row[..., RATE_N], row[..., WAITING]
        c = self.weight * softplus(SCALE * x0 + self.bias)
        a_step = n / self.step_s
        parts = [n * c[..., 0], a_step * c[..., 2], m * c[..., 1] + self.mean_n * c[..., 3], a_step * c[..., 4]]
        return torch.stack(parts, -1)

    def price(self, terms: Tensor, rest: Tensor, service_s: Tensor) -> Tensor:
        """Tasks that will wait behind a task on each server, `[R, S']`.

        Args:
            terms: `[R, S', 4]`. rest: share of a slot's tasks still to come, this one among them, `[R, 1]`.
            service_s: seconds that the task keeps each busy, `[R, S']`.
        """
        of_rest, of_backlog, fixed, of_service = terms.unbind(-1)
        at_once = torch.addcmul(torch.addcmul(fixed, of_rest, rest), of_backlog, self.fleet_work / self.total_f)
        return torch.addcmul(at_once, of_service, service_s)

    def renewed(self, row: Tensor, below: Tensor, turn: Tensor, coefficients: Coefficients) -> Tensor:
        """The servers' columns with new prices and new latents."""
        features = self.features(row, below, turn)
        latents = row[..., LATENT:CAPACITY]
        x0 = coefficients(features.flatten(0, -2), latents.flatten(0, -2)).view(latents.shape)
        return torch.cat([row[..., :PRICE], self.terms(row, x0), x0.clamp(-1, 1), row[..., CAPACITY:]], -1)

    def renew_all(self, coefficients: Coefficients) -> None:
        """New prices for all servers, at the start of a slot."""
        backlog = (self.servers[..., LOAD] / self.servers[..., CAPACITY]).masked_fill(~self.up, torch.inf)
        below = (backlog.unsqueeze(-2) < backlog.unsqueeze(-1)).sum(-1)
        self.servers = self.renewed(self.servers, below, torch.zeros_like(self.fleet_work), coefficients)

    def scan(
        self,
        delay_s: Tensor,
        service_s: Tensor,
        amount: Tensor,
        turn: Tensor,
        rest: Tensor,
        coefficients: Coefficients,
        *,
        others: Tensor | None = None,
        before: Callable[[int], None] | None = None,
        candidates: Tensor | None = None,
    ) -> Tensor:
        """Places tasks in order; each sees what the earlier ones left. The state moves on.

        Args:
            delay_s: of each task on each server if nothing were queued, infinite where it may not go, `[R, K, S]`.
            service_s: seconds that it keeps each server busy, `[R, K, S]`.
            amount: 1 where an entry is a task, 0 where not; between them, the chance that it is one, `[R, K]`.
            turn: share of the slot's tasks that have come after each, `[R, K]`.
            rest: share of the slot's tasks still to come before each, itself among them, `[R, K]`.
            coefficients: the network.
            others: order of all servers, int64 `[R, S]`, in which each task renews one beside the chosen; None: none.
            before: called with k before task k is placed.
            candidates: servers among which each task chooses, int64 `[R, K, C]`; None: all.

        Returns:
            Decisions, int64 `[R, K]`.
        """
        index = torch.arange(len(amount), device=amount.device)
        whole = (amount > 0).all(0).tolist()
        amount = amount.to(delay_s)
        decisions = torch.zeros(amount.shape, dtype=torch.int64, device=amount.device)
        f, any_down = self.servers[..., CAPACITY].contiguous(), bool((~self.up).any())
        both = index.unsqueeze(-1)
        for k in range(amount.shape[1]):
            if before is not None:
                before(k)
            load, terms, left = self.servers[..., LOAD], self.servers[..., PRICE:LATENT], rest[:, k, None]
            if candidates is None:
                price = self.price(terms, left, service_s[:, k])
                score = torch.addcmul(torch.addcdiv(delay_s[:, k], load, f), service_s[:, k], price)
                a = score.argmin(-1)
            else:
                of = candidates[:, k]
                service = service_s[:, k].gather(-1, of)
                some = delay_s[:, k].gather(-1, of) + load.gather(-1, of) / f.gather(-1, of)
                price = self.price(terms[both, of], left, service)
                a = of.gather(-1, (some + service * price).argmin(-1, keepdim=True)).squeeze(-1)
            decisions[:, k] = a
            work = service_s[index, k, a] * f[index, a] * amount[:, k]
            self.fleet_work = self.fleet_work + work.unsqueeze(-1)
            self.servers[index, a, :PRICE] += torch.stack([work, amount[:, k], amount[:, k], work], -1)
            who = a.unsqueeze(-1)
            if others is not None:
                who = torch.cat([others[:, (k + 1) % f.shape[-1], None], who], -1)
            row = self.servers[both, who]
            less = load.unsqueeze(1) * row[..., CAPACITY, None] < row[..., LOAD, None] * f.unsqueeze(1)
            below = (less & self.up.unsqueeze(1) if any_down else less).sum(-1)
            moved = self.renewed(row, below, turn[:, k, None], coefficients)
            if not whole[k]:
                moved = torch.where(amount[:, k, None, None] > 0, moved, row)
            self.servers[both, who] = moved
        return decisions
