"""`FleetDecision`: where one task goes in a fleet of any size, as a pure function that can be exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from diffpolicy.edge.pricing import law
from diffpolicy.edge.pricing.chains import GatedChain, PriceChain
from diffpolicy.edge.pricing.law import LATENTS, Coefficients, Servers, Whole
from diffpolicy.policies.masks import NO_CHOICE
from diffpolicy.policies.pure_decision import DecisionInput, PureDecision

_SERVERS = (
    ("load_gcycles", (0.0, 300.0), "work that is queued and in service"),
    ("waiting", (0.0, 200.0), "tasks that wait"),
    ("capacity_gcycles_per_s", (3.0, 50.0), "capacity"),
    ("tasks", (1.0, 80.0), "moving average of the tasks that it is sent in a step"),
    ("work_gcycles", (1.0, 80.0), "moving average of the work that it is sent in a step"),
)
_FLEET = (
    ("servers_up", (32.0, 1000.0), "number of servers that are up"),
    ("fleet_capacity_gcycles_per_s", (500.0, 5000.0), "capacity of all servers that are up"),
    ("mean_tasks", (1.0, 80.0), "mean of `tasks` over them"),
    ("mean_work_gcycles", (1.0, 80.0), "mean of `work_gcycles` over them"),
    ("fleet_load_gcycles", (0.0, 9000.0), "sum of `load_gcycles` over them"),
)

PAIRS = 64
"""Servers up to which all pairs are compared for ranks; from about a hundred on sorting takes less time."""


class FleetDecision(PureDecision):
    """The server of one task, by own delay plus the price of the time that it takes from others; rows are fleets.

    All prices are renewed from what the servers are now, so nothing but the inputs counts: no slot, no order of
    servers. For the first task of a slot that is what `FleetRule` does; later in it that rule renews the coefficients
    of the server that was chosen and, in turn, of one other.

    With `candidates` C, a task chooses among C servers that the caller drew. Their rows are gathered
    first and everything is computed on them alone, so the cost does not depend on S. What must be known of the fleet
    is then given as running scalars, as a dispatcher keeps them, and a rank (of backlog, of capacity) among the
    candidates stands for the rank among all. The outputs but `action` are of the candidates, `[rows, C]`, and so are
    the inputs `delay_s` and `service_s`.

    Args:
        coefficients: the chain, or another network.
        weight: of prices beside own delays. candidates: C; None: a task chooses among all servers.

    Example:
        >>> decision = FleetPolicy.pretrained("live").decision()
        >>> inputs = [i.random(1, torch.Generator(), servers=20) for i in decision.inputs]
        >>> action, score_s, price, next_latent = decision(*inputs)
    """

    trials: ClassVar[Sequence[Mapping[str, int]]] = tuple(
        {"rows": rows, "servers": servers} for rows, servers in ((1, 20), (1, 1), (7, 5), (64, 33))
    )

    def __init__(self, coefficients: Coefficients, *, weight: float = 1.0, candidates: int | None = None) -> None:
        super().__init__()
        if isinstance(coefficients, PriceChain | GatedChain):
            # registered, so that `to` and the tracer know their parameters
            self.denoisers = nn.ModuleList(chain.denoiser for chain in coefficients.chains)
        self.coefficients, self.weight, c = coefficients, weight, candidates
        each: tuple[int | str, ...] = ("rows", "servers")
        some: tuple[int | str, ...] = ("rows", "servers" if c is None else c)
        whose = "each server" if c is None else "each candidate"
        inputs = [DecisionInput(n, each, "float32", f"{text}, of each server", span) for n, span, text in _SERVERS]
        inputs.append(DecisionInput("latent", (*each, LATENTS), "float32", "what is remembered of each server"))
        inputs += [
            DecisionInput("delay_s", some, "float32", f"of the task on {whose} if nothing were queued", (0.1, 20.0)),
            DecisionInput("service_s", some, "float32", f"that the task keeps {whose} busy", (0.05, 2.0)),
            DecisionInput("turn", ("rows",), "float32", "share of the step's tasks that have come", (0.0, 1.0)),
            DecisionInput(
                "rest", ("rows",), "float32", "share of the step's tasks still to come, this one among them", (0.0, 1.0)
            ),
            DecisionInput("step_s", (1,), "float32", "usual length of a step, seconds", (0.5, 2.0)),
        ]
        if c is None:
            inputs.append(DecisionInput("up", each, "bool", "which servers are up"))
        else:
            inputs.append(DecisionInput("candidates", some, "int64", "servers that may be chosen", (0, "servers")))
            inputs += [DecisionInput(n, ("rows",), "float32", text, span) for n, span, text in _FLEET]
        self.inputs = tuple(inputs)
        self.outputs = (
            DecisionInput("action", ("rows",), "int64", "the server; -1 if none is up, or a number is not finite"),
            DecisionInput("score_s", some, "float32", f"own delay plus priced time, of {whose}; infinite if down"),
            DecisionInput("price", some, "float32", f"tasks that will wait behind the task on {whose}"),
            DecisionInput("next_latent", (*some, LATENTS), "float32", f"what to remember of {whose}"),
        )

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in their order. Args: tensors: the inputs, in their order."""
        given = self.named(tensors)
        load, waiting, f, tasks, work = (given[name] for name, *_ in _SERVERS)
        latent, of, up = given["latent"], given.get("candidates"), given.get("up")
        beside = [given[name].unsqueeze(-1) for name in ("rest", *(n for n, *_ in _FLEET if of is not None))]
        if of is not None:
            load, waiting, f, tasks, work = (x.gather(-1, of) for x in (load, waiting, f, tasks, work))
            latent = latent.gather(-2, of.unsqueeze(-1).expand(-1, -1, LATENTS))
        # a runtime would spread these over rows or servers that they lack; it joins none to the others then
        sizes = [f.shape[-1]] * 3 + [1] * len(beside)
        joined = torch.cat([load, given["delay_s"], given["service_s"], *beside], -1)
        load, delay, service, rest, *fleet = joined.split(sizes, -1)
        if of is not None:
            count, total_f, mean_n, mean_w, fleet_load = fleet
            here, both = torch.full_like(count, of.shape[-1]), torch.stack([f, load / f], -2)
        else:
            assert up is not None
            load = torch.where(up, load, 0.0)
            fleet_load, here = load.sum(-1, keepdim=True), up.to(load).sum(-1, keepdim=True)
            both = torch.where(up.unsqueeze(-2), torch.stack([f, load / f], -2), torch.inf)
        capacity_rank, backlog_rank = law.rank(_below(both), here.unsqueeze(-2)).unbind(-2)
        servers = Servers(load, waiting, f, tasks, work, capacity_rank)
        whole = Whole.told(count, total_f, mean_n, mean_w) if up is None else Whole.of(servers, up)
        step_s = given["step_s"]
        seen = law.features(servers, whole, fleet_load, backlog_rank, given["turn"].unsqueeze(-1), step_s)
        x0 = self.coefficients(seen.stacked(), latent)
        counts = law.counts(servers, whole, rest, fleet_load / whole.capacity, service, step_s)
        price = (law.coefficients(x0, self.weight) * counts).sum(-1)
        score = delay + load / f + service * price
        # every number of a server that may be chosen is in its score, and nan is no order: a runtime would take any
        gap = score - score
        if up is not None:
            score, gap = score.masked_fill(~up, torch.inf), gap.masked_fill(~up, 0.0)
        action, right = score.argmin(-1), gap.sum(-1) == 0
        if of is None:
            right = right & (here.squeeze(-1) > 0)
        else:
            action = of.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        action = torch.where(right, action, NO_CHOICE)
        return action, score, price, x0.clamp(-1, 1)

    def allows(self, action: Tensor, inputs: Sequence[Tensor], outputs: Sequence[Tensor], tolerance: float) -> Tensor:
        """A server is right if its score is the smallest but for a rounding error."""
        score = outputs[1]
        servers = self.named(inputs).get(
            "candidates", torch.arange(score.shape[-1], device=score.device).expand_as(score)
        )
        chosen = score.masked_fill(servers != action.unsqueeze(-1), torch.inf).amin(-1)
        best = score.amin(-1)
        return chosen <= best + tolerance * best.abs().clamp_min(1)


def _below(x: Tensor) -> Tensor:
    """How many of a row are smaller than each, `[*, S]`.

    A graph holds both ways: a comparison of all pairs is fewer operations, and all the cost in a large fleet.
    """
    below: Tensor = torch.cond(x.shape[-1] <= PAIRS, _by_pairs, _by_sorting, (x,))
    return below


def _by_pairs(x: Tensor) -> Tensor:
    """Each compared with each."""
    return (x.unsqueeze(-2) < x.unsqueeze(-1)).to(x).sum(-1)


def _by_sorting(x: Tensor) -> Tensor:
    """The place in order; of equals, that of the first counts.

    Places are sums of ones, since an exported graph would first compute how many there are.
    """
    ordered, order = x.sort(-1)
    new = ordered > pad(ordered, (1, -1), value=torch.inf)
    group, one = new.long().cumsum(-1), torch.ones_like(ordered)
    place = one.cumsum(-1)
    first = one.scatter_reduce(-1, group, torch.where(new, place, one), "amax").gather(-1, group)
    return one.scatter(-1, order, first) - 1
