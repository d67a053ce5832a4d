"""`FleetState.start` and `FleetState.place` in compiled form: fleets as blocks of numbers, and tasks placed on them.

It is the only second form of `FleetState.place_by_law`; tests hold them equal.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffpolicy.edge.pricing import law
from diffpolicy.edge.pricing.chains import GatedChain, PriceChain
from diffpolicy.edge.pricing.compiled import (
    Moment,
    Network,
    Scratch,
    State,
    compile,  # noqa: A004
    moved_on,
    network_of,
    priced_s,
    renew,
    room,
    rows_of,
)
from diffpolicy.edge.pricing.law import LATENTS

if TYPE_CHECKING:
    from diffpolicy.edge.pricing.state import FleetState, Queue

_K = LATENTS


@compile
def place_one(
    block: Any,
    up: Any,
    total_f: float,
    of: Any,
    queue: Any,
    network: Network,
    scratch: Scratch,
    sent: Any,
    chosen: Any,
    parts: Any,
) -> None:
    """`FleetState.place_by_law` of one fleet.

    Args:
        block: `[ROWS, S]`, which moves on. up: `[S]`. total_f: capacity of all that are up.
        of: the last fields of a moment, `[7]`.
        queue: delay_s, service_s, amount, turn, rest, others and candidates, the last two of size 0 where there are
            none. sent: takes tasks and work, `[2, S]`. chosen: takes decisions, `[K]`.
        parts: takes the blocks before each part, `[P, ROWS, S]`.
    """
    delay_s, service_s, amounts, turns, rests, others, candidates = queue
    tasks, servers, count, every = chosen.shape[0], up.shape[0], candidates.shape[1], 0
    if parts.shape[0]:
        every = tasks // parts.shape[0]
    state, load = rows_of(block), 0.0
    for a in range(servers):
        load += state.load[a] * up[a]
    moment = Moment(0.0, 1.0, load / total_f, of[0], of[1], of[2], of[3], of[4], of[5], of[6])
    for k in range(tasks):
        if every and k % every == 0:
            parts[k // every] = block
        moment = moved_on(moment, moment.turn, rests[k], load / total_f)
        least, best = math.inf, candidates[k, 0] if count else 0
        for c in range(count if count else servers):
            a = candidates[k, c] if count else c
            service = service_s[k, a]
            score = delay_s[k, a] + state.load[a] / state.capacity[a] + priced_s(a, state, moment, service)
            if score < least:
                least, best = score, a
        chosen[k] = best
        amount = amounts[k]
        if amount == 0.0:
            continue
        work = service_s[k, best] * state.capacity[best] * amount
        state.load[best] += work
        state.waiting[best] += amount
        sent[0, best] += amount
        sent[1, best] += work
        if up[best]:
            load += work
        moment = moved_on(moment, turns[k], moment.rest, load / total_f)
        if others.shape[0]:
            other = others[(k + 1) % servers]
            if other != best:
                renew(other, state, moment, up, network, scratch)
        renew(best, state, moment, up, network, scratch)


@compile
def begin(state: State, up: Any, total_f: float, of: Any, network: Network, scratch: Scratch) -> None:
    """`FleetState.start` of one fleet, all of it up: all prices new. Args: see `place_one`."""
    load = 0.0
    for a in range(up.shape[0]):
        load += state.load[a]
    moment = Moment(0.0, 1.0, load / total_f, of[0], of[1], of[2], of[3], of[4], of[5], of[6])
    for a in range(up.shape[0]):
        renew(a, state, moment, up, network, scratch)


@compile
def _start(blocks: Any, up: Any, total_f: Any, moments: Any, network: Network) -> None:
    """`begin` for each of R fleets, `[R, ...]` all."""
    scratch = room(network)
    for r in range(blocks.shape[0]):
        begin(rows_of(blocks[r]), up[r], total_f[r], moments[r], network, scratch)


@compile
def _place(
    blocks: Any, up: Any, total_f: Any, moments: Any, queue: Any, network: Network, sent: Any, chosen: Any, parts: Any
) -> None:
    """`place_one` for each of R fleets, `[R, ...]` all."""
    delay_s, service_s, amounts, turns, rests, others, candidates = queue
    scratch = room(network)
    for r in range(chosen.shape[0]):
        of = (delay_s[r], service_s[r], amounts[r], turns[r], rests[r], others[r], candidates[r])
        place_one(blocks[r], up[r], total_f[r], moments[r], of, network, scratch, sent[r], chosen[r], parts[r])


def start(state: FleetState, chain: PriceChain | GatedChain) -> FleetState:
    """`FleetState.start` of fleets that are all up, on the CPU. Args: state: without prices."""
    blocks, about = _packed(state)
    _start(blocks.numpy(), *about, network_of(chain))
    return _unpacked(state, blocks)


def place(
    state: FleetState, queue: Queue, chain: PriceChain | GatedChain, every: int | None = None
) -> tuple[Tensor, FleetState, list[FleetState]]:
    """`FleetState.place` on the CPU. Args: see there."""
    fleets, tasks = queue.amount.shape
    blocks, about = _packed(state)
    parts = blocks.new_empty(fleets, 0 if every is None else tasks // every, *blocks.shape[1:])
    sent = torch.stack([state.sent_tasks, state.sent_work], 1)
    chosen = torch.zeros(fleets, tasks, dtype=torch.int64, device="cpu")
    none = torch.zeros(fleets, 0, dtype=torch.int64, device="cpu")
    others = none if queue.others is None else queue.others
    candidates = none.new_zeros(fleets, tasks, 0) if queue.candidates is None else queue.candidates
    amount = queue.amount.to(blocks)
    given = (queue.delay_s, queue.service_s, amount, queue.turn, queue.rest, others, candidates)
    of = tuple(x.contiguous().numpy() for x in given)
    _place(blocks.numpy(), *about, of, network_of(chain), sent.numpy(), chosen.numpy(), parts.numpy())
    before = [_unpacked(state, parts[:, p]) for p in range(parts.shape[1])]
    after = replace(_unpacked(state, blocks), sent_tasks=sent[:, 0], sent_work=sent[:, 1])
    return chosen, after, before


def _packed(state: FleetState) -> tuple[Tensor, tuple[Any, Any, Any]]:
    """The blocks of fleets `[R, ROWS, S]`; which servers are up, the capacity of all, and the fields of a moment."""
    s, whole = state.servers, state.whole
    # of these only what does not change within a slot is read
    seen = law.features(s, whole, state.fleet_load, s.load, s.load[:, :1], state.step_s)
    fixed = (seen.capacity, seen.capacity_rank, seen.share, seen.task_work)
    rows = [s.load, s.capacity, s.tasks, s.work, s.waiting, *state.terms]
    blocks = torch.cat([torch.stack(rows, 1), state.latent.transpose(1, 2), torch.stack(fixed, 1)], 1).contiguous()
    scalar = torch.ones_like(whole.number)
    of = (whole.tasks, whole.service_s, scalar * state.step_s, seen.overload, seen.tasks, whole.number)
    moments = torch.cat([*of, scalar * state.weight], -1)
    about = (state.up.contiguous(), whole.capacity.squeeze(-1).contiguous(), moments)
    return blocks, (about[0].numpy(), about[1].numpy(), about[2].numpy())


def _unpacked(state: FleetState, blocks: Tensor) -> FleetState:
    """The state that a block tells."""
    rows = blocks.unbind(1)
    return replace(
        state,
        servers=state.servers._replace(load=rows[0], waiting=rows[4]),
        terms=law.Terms(*rows[5:9]),
        latent=blocks[:, 9 : 9 + _K].transpose(1, 2).contiguous(),
    )
