"""A compiled player of whole episodes under a price rule: what makes evolution and price iteration affordable.

It plays the law of LAD-TS on a given fleet, by the compiled form of the price's law, in float64, some hundred times
faster for one episode than the batched tensors; tests hold the two together. It needs the extra `fleet` (numba).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from diffpolicy.edge.pricing import compiled
from diffpolicy.edge.pricing.compiled import (
    CAPACITY,
    RANK,
    ROWS,
    SHARE,
    TASK_WORK,
    Moment,
    Network,
    moved_on,
    networks,
    priced_s,
    renew,
    room,
    rows_of,
)
from diffpolicy.edge.pricing.law import FEATURES, LATENTS, TASKS_PER_SERVER

__all__ = ["GREEDY", "LIVE", "STALE", "Coming", "Network", "Noted", "Problem", "networks", "play"]

GREEDY, LIVE, STALE = 0, 1, 2
"""Modes: the greedy rule Opt-TS, and the price rule with live or stale information."""
_F, _K = FEATURES, LATENTS


class Problem(NamedTuple):
    """What is played on.

    Args:
        capacity, rate, rank: of the servers, `[S]`. home: server at each station, -1 for none, `[B]`.
        order: of the servers whose prices are renewed in turn, `[S]`.
        work_by_index, result_by_index: `[N]`. chance: that a station has a task of an index, `[N]`.
    """

    capacity: Any
    rate: Any
    rank: Any
    home: Any
    order: Any
    work_by_index: Any
    result_by_index: Any
    chance: Any


class Coming(NamedTuple):
    """What comes.

    Args:
        counts: tasks by slot and station, `[T, B]`. inputs: Mbit, real and imagined, `[2, T, B, N]`.
        first: a station's tasks are of the indices first, first + 1, ... (modulo N) in a slot, `[T, B]`; 0 if STALE.
        gaps: seconds from each slot to the next, `[T]`. slot_s: their usual length.
    """

    counts: Any
    inputs: Any
    first: Any
    gaps: Any
    slot_s: float


class Noted(NamedTuple):
    """What an episode leaves, in arrays of length 0 where it is not asked for.

    Args:
        records: takes (features, counts of the price, label) of every `stride`-th decision, `[R, F + K + 1]`. The label
            counts the later tasks of the busy period until slot t + outlook t + least_outlook; decisions whose outlook
            passes the end are left out.
        delays: takes each task's delay in arrival order, `[K]`.
        until: takes the sum of the delays up to each slot, `[T]`.
    """

    records: Any
    stride: int
    outlook: float
    least_outlook: int
    delays: Any
    until: Any


@compiled.compile
def _best(state: Any, moment: Moment, rate: Any, home: int, w: float, d: float, r: float, priced: bool) -> int:
    """The server with the smallest score for a task. Args: priced: whether prices count."""
    least, arg = math.inf, 0
    for a in range(rate.shape[0]):
        f = state.capacity[a]
        way = r if home == a else r + d
        score = (state.load[a] + w) / f + way / rate[a]
        if priced:
            score += priced_s(a, state, moment, w / f)
        if score < least:
            least, arg = score, a
    return arg


@compiled.compile
def play(network: Network, mode: int, problem: Problem, coming: Coming, noted: Noted) -> Any:
    """Plays an episode; gives the sum of the delays, their number and the number of records. Args: mode: see above."""
    capacity, rate, rank, home, order, work_by_index, result_by_index, chance = problem
    counts, inputs, first, gaps, slot_s = coming
    records, stride, outlook, least_outlook, delays, until = noted
    slots, stations = counts.shape
    servers, kinds = capacity.shape[0], work_by_index.shape[0]
    block, of_own = np.zeros((ROWS, servers)), np.zeros((ROWS, servers))
    state, own, up = rows_of(block), rows_of(of_own), np.ones(servers, np.bool_)
    total_f = capacity.sum()
    share_of = capacity / total_f
    state.capacity[:], state.fixed[RANK] = capacity, rank
    state.tasks[:] = stations * chance.sum() * share_of
    state.work[:] = stations * (chance * work_by_index).sum() * share_of
    state.latent[:] = 1.0 / _K
    scratch = room(network)
    real, tasks, work = np.zeros(servers), np.zeros(servers), np.zeros(servers)
    sent, busy = np.zeros((slots + 1, servers)), np.zeros((slots, servers))
    recorded = records.shape[0]
    at = np.zeros((recorded, 2), np.int64)
    total, number, found, seen = 0.0, 0, 0, 0
    for t in range(slots):
        nbar, wbar, fbar = state.tasks.sum() / servers, state.work.sum() / servers, total_f / servers
        mu = nbar * servers / stations
        load = state.load.sum()
        overload = min(max(wbar / (fbar * slot_s) - 1.0, -1.0), 2.0)
        of_tasks, mean_s = 0.25 * math.log(1.0 + nbar), wbar / nbar / fbar
        moment = Moment(0.0, 1.0, load / total_f, nbar, mean_s, slot_s, overload, of_tasks, float(servers), 1.0)
        real[:] = state.load
        tasks[:], work[:] = 0.0, 0.0
        if mode != GREEDY:
            for a in range(servers):
                n, w = state.tasks[a] + 0.1 * nbar, state.work[a] + 0.1 * wbar
                state.fixed[CAPACITY, a] = math.log(capacity[a] / fbar)
                state.fixed[SHARE, a] = math.log(n / (1.1 * nbar))
                state.fixed[TASK_WORK, a] = math.log(w / n * nbar / wbar)
            for a in range(servers):
                renew(a, state, moment, up, network, scratch)
        k, place = 0.0, 0
        for b in range(stations):
            if mode == STALE:
                of_own[:] = block
                before, here = moment, load
                for i in range(counts[t, b]):
                    w, d, r = work_by_index[i], inputs[0, t, b, i], result_by_index[i]
                    a = _best(own, moment, rate, home[b], w, d, r, True)
                    delay = (real[a] + w) / capacity[a] + (r if home[b] == a else r + d) / rate[a]
                    if delays.shape[0]:
                        delays[number] = delay
                    total += delay
                    number += 1
                    real[a] += w
                    own.load[a] += w
                    own.waiting[a] += 1.0
                    here += w
                    done, left = k + i + 1.0, counts[t, b] - i - 1 + (stations - b - 1) * mu
                    moment = moved_on(moment, done / (done + left), left / (stations * mu), here / total_f)
                    renew(a, own, moment, up, network, scratch)
                moment = before
            for i in range(kinds if mode == STALE else counts[t, b]):
                amount = chance[i] if mode == STALE else 1.0
                j = (first[t, b] + i) % kinds
                w, d, r = work_by_index[j], inputs[1 if mode == STALE else 0, t, b, i], result_by_index[j]
                a = _best(state, moment, rate, home[b], w, d, r, mode != GREEDY)
                if mode != STALE:
                    delay = (state.load[a] + w) / capacity[a] + (r if home[b] == a else r + d) / rate[a]
                    if delays.shape[0]:
                        delays[number] = delay
                    total += delay
                    number += 1
                state.load[a] += amount * w
                tasks[a] += amount
                if mode == GREEDY:
                    continue
                work[a] += amount * w
                state.waiting[a] += amount
                load += amount * w
                k += amount
                place += 1
                own_left = counts[t, b] - i - 1 + (stations - b - 1) * mu
                left = max(stations * mu - k, 0.0) if mode == STALE else own_left
                moment = moved_on(moment, k / (k + left), left / (stations * mu), load / total_f)
                # the server whose turn it is, and the one that was chosen
                other = order[place % servers]
                if mode == LIVE and other != a:
                    renew(other, state, moment, up, network, scratch)
                renew(a, state, moment, up, network, scratch)
                if recorded:
                    seen += 1
                    if seen % stride == 0 and found < recorded:
                        n = state.tasks[a]
                        records[found, :_F] = scratch.feature
                        records[found, _F] = n * moment.rest
                        records[found, _F + 1] = state.waiting[a]
                        records[found, _F + 2] = n * moment.fleet_s / slot_s
                        records[found, _F + 3] = nbar
                        records[found, _F + 4] = n * w / capacity[a] / slot_s
                        records[found, _F + _K] = tasks[a]
                        at[found, 0], at[found, 1] = t, a
                        found += 1
        if until.shape[0]:
            until[t] = total
        share = 1.0 - math.exp(-tasks.sum() / (TASKS_PER_SERVER * servers))
        for a in range(servers):
            state.tasks[a] += share * (tasks[a] - state.tasks[a])
            state.work[a] += share * (work[a] - state.work[a])
            queued = state.load[a]
            left = max((real[a] if mode == STALE else queued) - capacity[a] * gaps[t], 0.0)
            state.waiting[a] = state.waiting[a] * min(left / queued, 1.0) if queued > 0 else 0.0
            state.load[a] = left
            sent[t + 1, a] = sent[t, a] + tasks[a]
            busy[t, a] = 1.0 if left > 0 else 0.0
    kept = 0
    for i in range(found):
        t, a = at[i, 0], at[i, 1]
        last = int(t + outlook * t + least_outlook)
        if last >= slots:
            continue
        end = t
        while end < last and busy[end, a] > 0:
            end += 1
        records[kept] = records[i]
        records[kept, _F + _K] = sent[end + 1, a] - sent[t, a] - records[i, _F + _K]
        kept += 1
    return total, number, kept
