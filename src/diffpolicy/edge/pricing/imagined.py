"""Slots as stations imagine them who do not hear of each other's tasks in time, and where each places its own.

A slot is imagined with every task that a station may have, counted by its chance. Where stations come in turn, all
imagine the same slot, and each places its own tasks at its turn. Where they come mixed, the slot is imagined in
`ROUNDS` rounds, in each of which stations come in turn: a task that may come is in the round in which the tasks before
it will have come, and of n real ones i is in that of (i + 1/2) / n. Each station then goes through the slot once more
with its own real tasks, while the others' stay where all imagine them. They cannot react to tasks that they do not
know of; if they are imagined to, a station believes in a slot that nobody else expects.

Shapes: K imagined slots; R = E B stations of E environments, who each look at one of them, `who` `[R]`; N tasks each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffpolicy.edge.pricing.law import Coefficients
from diffpolicy.edge.pricing.state import FleetState, Queue

CELLS = 2**22
"""Numbers of a queue's costs that are held at once."""
ROUNDS = 6
"""Rounds of a slot whose stations come mixed: one is `in_turn`; many lose what each balances among its own tasks."""


@dataclass(frozen=True)
class Slot:
    """Slots as they are imagined.

    Args:
        delay_s, service_s: of what may come on each server, `[K, B, N, S]`. chance: that it comes, `[K, N]`.
        expected: tasks of a station in a slot, from the memory of what was sent, `[K, 1]`.
    """

    delay_s: Tensor
    service_s: Tensor
    chance: Tensor
    expected: Tensor

    @property
    def stations(self) -> int:
        """Their number, B."""
        return self.delay_s.shape[1]

    def at(self, rows: Tensor) -> Slot:
        """Some of them. Args: rows: int64 `[K']`, or bool `[K]`."""
        return Slot(*(x[rows] for x in vars(self).values()))


@dataclass(frozen=True)
class Own:
    """Stations' real tasks. Args: delay_s, service_s: `[R, N, S]`. valid: bool `[R, N]`. candidates: `[R, N, C]`."""

    delay_s: Tensor
    service_s: Tensor
    valid: Tensor
    candidates: Tensor | None

    def at(self, rows: Tensor) -> Own:
        """Those of some stations. Args: rows: int64 `[R']`."""
        candidates = None if self.candidates is None else self.candidates[rows]
        return Own(self.delay_s[rows], self.service_s[rows], self.valid[rows], candidates)


def decided(
    slot: Slot, begun: FleetState, mixed: Tensor, who: Tensor, station: Tensor, own: Own, coefficients: Coefficients
) -> tuple[Tensor, FleetState]:
    """Decisions of stations that come in turn or mixed. Args: mixed: which of the slots, bool `[K]`; see `in_turn`.

    Returns:
        Servers of the real tasks, int64 `[R, N]`, and the state after the imagined slots.
    """
    chosen = torch.zeros(own.valid.shape, dtype=torch.int64, device=own.valid.device)
    states, order = [], []
    for flag, how in ((False, in_turn), (True, among_others)):
        of, here = ((x == flag).nonzero().squeeze(-1) for x in (mixed, mixed[who]))
        if len(of):
            place = torch.zeros_like(mixed, dtype=torch.int64)
            place[of] = torch.arange(len(of), device=of.device)
            answer = how(slot.at(of), begun.at(of), place[who[here]], station[here], own.at(here), coefficients)
            chosen[here], after = answer
            states.append(after)
            order.append(of)
    return chosen, FleetState.joined(states).at(torch.cat(order).argsort())


def in_turn(
    slot: Slot, begun: FleetState, who: Tensor, station: Tensor, own: Own, coefficients: Coefficients
) -> tuple[Tensor, FleetState]:
    """Decisions where stations come one after the other.

    Args:
        slot, begun: as K slots begin. who: which of them a station looks at, `[R]`. station: its number, `[R]`.
        own: the real tasks. coefficients: the network.

    Returns:
        Servers of the real tasks, int64 `[R, N]`, and the state after the imagined slots.
    """
    met = at_turn(slot, begun, who, station, own, coefficients)
    return met.found.place(met.queue, coefficients)[0], met.after


@dataclass(frozen=True)
class Met:
    """What stations meet as their turn comes.

    Args:
        found: the fleets, R of them. queue: their real tasks. after: the state after the imagined slots.
        left: share of a slot's tasks that the stations after each bring, `[R, 1]`.
    """

    found: FleetState
    queue: Queue
    after: FleetState
    left: Tensor


def at_turn(slot: Slot, begun: FleetState, who: Tensor, station: Tensor, own: Own, coefficients: Coefficients) -> Met:
    """What stations that come one after the other meet as their turn comes. Args: as of `in_turn`."""
    b, n = slot.stations, slot.chance.shape[-1]
    expected, number = slot.expected, own.valid.shape[-1]
    amount = slot.chance.repeat(1, b)
    come = amount.cumsum(-1)
    left = (b * expected - come).clamp_min(0)
    rest = torch.cat([torch.ones_like(expected), left[:, :-1] / (b * expected)], -1)
    queue = Queue(slot.delay_s.flatten(1, 2), slot.service_s.flatten(1, 2), amount, come / (come + left), rest)
    _, after, parts = begun.place(queue, coefficients, every=n)
    found = FleetState.joined(parts).at(station * len(amount) + who)
    index, turn_of = torch.arange(number, device=amount.device), station.unsqueeze(-1)
    mine, of_all = own.valid.sum(-1, keepdim=True), (b * expected)[who]
    done = turn_of * slot.chance.sum(-1, keepdim=True)[who] + index + 1
    others = (b - 1 - turn_of) * expected[who]
    still = (mine - index - 1).clamp_min(0) + others
    first = rest[:, ::n][who, station].unsqueeze(-1)
    theirs = Queue(
        own.delay_s,
        own.service_s,
        own.valid,
        done / (done + still),
        torch.cat([first, (still / of_all)[:, :-1]], -1),
        candidates=own.candidates,
    )
    return Met(found, theirs, after, others / of_all)


def among_others(
    slot: Slot, begun: FleetState, who: Tensor, station: Tensor, own: Own, coefficients: Coefficients
) -> tuple[Tensor, FleetState]:
    """Decisions where stations come mixed. Args and Returns: as of `in_turn`."""
    b, n = slot.stations, slot.chance.shape[-1]
    usual = b * slot.expected
    may_come = slot.chance.unsqueeze(1).expand(-1, b, -1)
    come = slot.chance.cumsum(-1) - 0.5 * slot.chance
    of_all = rounds(come / slot.chance.sum(-1, keepdim=True).clamp_min(1e-9)).unsqueeze(1).expand(-1, b, -1)
    queue, order = _queued(slot.delay_s, slot.service_s, may_come, of_all, usual)
    placed, after, _ = begun.place(queue, coefficients)
    there = torch.zeros_like(placed).scatter(1, order, placed).view(-1, b, n, 1)
    chosen = torch.zeros(own.valid.shape, dtype=torch.int64, device=own.valid.device)
    number = own.valid.shape[-1]
    index = torch.arange(n, device=who.device)
    block = max(1, CELLS // (b * n * slot.delay_s.shape[-1]))
    for rows in torch.arange(len(who), device=who.device).split(block):
        of = who[rows]
        service, amount, order = slot.service_s[of], may_come[of].clone(), of_all[of].clone()
        # the others' tasks may go nowhere but where all imagine them
        delay = torch.full_like(slot.delay_s[of], torch.inf)
        delay.scatter_(-1, there[of], slot.delay_s[of].gather(-1, there[of]))
        own_delay, valid = own.delay_s[rows], own.valid[rows]
        if own.candidates is not None:
            may = torch.zeros_like(own_delay, dtype=torch.bool).scatter(-1, own.candidates[rows], True)
            own_delay = own_delay.masked_fill(~may, torch.inf)
        at = torch.arange(len(rows), device=who.device), station[rows]
        amount[at] = 0.0
        mine = (*at, slice(number))
        amount[mine] = valid.to(amount)
        delay[mine], service[mine] = own_delay, own.service_s[rows]
        order[at] = rounds((index + 0.5) / valid.sum(-1, keepdim=True).clamp_min(1))
        queue, order = _queued(delay, service, amount, order, usual[of])
        decisions = begun.at(of).place(queue, coefficients)[0]
        back = torch.zeros_like(decisions).scatter(1, order, decisions)
        chosen[rows] = back.view(len(rows), b, n)[at][:, :number]
    return chosen, after


def rounds(come: Tensor) -> Tensor:
    """The rounds of tasks, int64. Args: come: share of the slot's tasks that come before each, and half of itself."""
    # what lies on a border but for rounding belongs behind it, on any device
    return (come * ROUNDS + 1e-9).long().clamp_max(ROUNDS - 1)


def _queued(
    delay_s: Tensor, service_s: Tensor, amount: Tensor, of_round: Tensor, usual: Tensor
) -> tuple[Queue, Tensor]:
    """The tasks of slots, round by round, in each of them station by station; and their order, int64 `[K, B N]`.

    Args:
        delay_s, service_s: `[K, B, N, S]`. amount: `[K, B, N]`. of_round: int64 `[K, B, N]`.
        usual: tasks that are usual in a slot, `[K, 1]`.
    """
    order = of_round.flatten(1).argsort(dim=-1, stable=True)
    wide = order.unsqueeze(-1).expand(-1, -1, delay_s.shape[-1])
    amount = amount.flatten(1).gather(1, order)
    come = amount.cumsum(-1)
    left = come[:, -1:] - come
    rest = torch.cat([torch.ones_like(usual), left[:, :-1] / usual], -1)
    turn = come / come[:, -1:].clamp_min(1e-9)
    return Queue(
        delay_s.flatten(1, 2).gather(1, wide), service_s.flatten(1, 2).gather(1, wide), amount, turn, rest
    ), order
