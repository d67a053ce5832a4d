"""A compiled player of whole episodes under a price rule: what makes evolution and price iteration affordable.

It plays the law of LAD-TS on a given fleet, with the features, prices and scans of `fleet_scan`, in float64, some
hundred times faster for one episode than the batched tensors that decide in earnest; tests hold the two together.
It needs the extra `fleet` (numba).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from diffpolicy.edge.pricing.features import BIAS, CEILING, FEATURES, LATENTS, SCALE, TASKS_PER_SERVER

GREEDY, LIVE, STALE = 0, 1, 2
"""Modes: the greedy rule Opt-TS, and the price rule with live or stale information."""

_F, _K = FEATURES, LATENTS
_BIAS = np.array(BIAS)
# rows of the state, a column being a server: load, capacity, averages of tasks and work, tasks that wait; the terms of
# the price; the latents; the features that do not change within a slot
_Q, _CAP, _N, _W, _M, _PRICE = range(6)
_L = _PRICE + 4
_FIXED = _L + _K
_ROWS = _FIXED + 4
# places in the scalars
_TURN, _REST, _X, _NBAR, _PBAR, _DT, _OVER, _TASKS = range(8)


@njit(cache=True, nogil=True, error_model="numpy")
def _coefficient(x: float, k: int) -> float:
    z: float = SCALE * x + _BIAS[k]
    return math.log(1.0 + math.exp(-abs(z))) + max(z, 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _clip(x: float) -> float:
    return min(max(x, -1.0), 1.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _logarithm(x: float) -> float:
    return 0.25 * math.log((1.0 + x) / (1.0 + x / CEILING))


@njit(cache=True, nogil=True, error_model="numpy")
def _layers(theta: Any, hidden: int, steps: int) -> Any:
    """A `SetDenoiser`'s parameters, whose order theta follows, with the outputs' weights as rows, `[K, H]`."""
    of_x, of_step, out = _F * hidden, (_F + _K) * hidden, (_F + _K + steps) * hidden
    return (
        theta[:of_x].reshape((_F, hidden)),
        theta[of_x:of_step].reshape((_K, hidden)),
        theta[of_step:out].reshape((steps, hidden)),
        np.ascontiguousarray(theta[out : out + hidden * _K].reshape((hidden, _K)).T),
        theta[out + hidden * _K :],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _refresh(a: int, state: Any, scalars: Any, net: Any, path: Any, remember: bool, work: Any) -> None:
    """Server a's features, its chain, and the terms of its price.

    Args:
        net: of `_layers`. work: room for the features, what the chain does not change, the hidden layer, and sums.
    """
    of_condition, of_x, of_step, out, out_bias = net
    feature, base, hidden, sums = work
    servers, width = state.shape[1], base.shape[0]
    load, capacity, n, m = state[_Q, a], state[_CAP, a], state[_N, a], state[_M, a]
    fleet_s, mean_s, dt, nbar = scalars[_X], scalars[_PBAR], scalars[_DT], scalars[_NBAR]
    backlog = load / capacity
    below = 0
    for b in range(servers):
        below += state[_Q, b] * capacity < load * state[_CAP, b]
    feature[0] = _logarithm(backlog / mean_s)
    feature[1] = _logarithm(fleet_s / mean_s)
    feature[2] = (backlog - fleet_s) / (backlog + fleet_s + mean_s)
    feature[3], feature[4] = state[_FIXED, a], state[_FIXED + 1, a]
    feature[5] = 2.0 * (below + 0.5) / servers - 1.0
    feature[6], feature[7] = state[_FIXED + 2, a], state[_FIXED + 3, a]
    feature[8], feature[9] = scalars[_OVER], scalars[_TURN]
    feature[10], feature[11] = _logarithm(m), scalars[_TASKS]
    feature[12], feature[13] = fleet_s / (fleet_s + dt), backlog / (backlog + dt)
    # `SetDenoiser` of one server. The F = 14 features and K = 5 latents are written out, and the units of an output are
    # summed in four parts at once, so that all of it becomes vector instructions: two thirds of the time of plain loops
    f0, f1, f2, f3, f4, f5, f6 = feature[0], feature[1], feature[2], feature[3], feature[4], feature[5], feature[6]
    f7, f8, f9, g0, g1, g2, g3 = feature[7], feature[8], feature[9], feature[10], feature[11], feature[12], feature[13]
    for h in range(width):
        z = f0 * of_condition[0, h] + f1 * of_condition[1, h] + f2 * of_condition[2, h] + f3 * of_condition[3, h]
        z += f4 * of_condition[4, h] + f5 * of_condition[5, h] + f6 * of_condition[6, h] + f7 * of_condition[7, h]
        z += f8 * of_condition[8, h] + f9 * of_condition[9, h] + g0 * of_condition[10, h] + g1 * of_condition[11, h]
        base[h] = z + (g2 * of_condition[12, h] + g3 * of_condition[13, h])
    x0, x1, x2, x3, x4 = 0.0, 0.0, 0.0, 0.0, 0.0
    if remember:
        x0, x1, x2, x3, x4 = state[_L, a], state[_L + 1, a], state[_L + 2, a], state[_L + 3, a], state[_L + 4, a]
    steps, part = path.shape[0], width // 4
    for s in range(steps):
        of_now = of_step[steps - s - 1]
        for h in range(width):
            z = base[h] + of_now[h] + x0 * of_x[0, h] + x1 * of_x[1, h] + x2 * of_x[2, h]
            z += x3 * of_x[3, h] + x4 * of_x[4, h]
            hidden[h] = z / (1.0 + abs(z))
        for k in range(_K):
            for h in range(part):
                i, j = h + 2 * part, h + 3 * part
                z = hidden[h] * out[k, h] + hidden[h + part] * out[k, h + part]
                sums[k, h] = z + (hidden[i] * out[k, i] + hidden[j] * out[k, j])
        o0, o1, o2, o3, o4 = out_bias[0], out_bias[1], out_bias[2], out_bias[3], out_bias[4]
        for h in range(part):
            o0, o1, o2, o3, o4 = o0 + sums[0, h], o1 + sums[1, h], o2 + sums[2, h], o3 + sums[3, h], o4 + sums[4, h]
        keep, push = path[s, 0], path[s, 1]
        x0, x1, x2 = keep * x0 + push * o0, keep * x1 + push * o1, keep * x2 + push * o2
        x3, x4 = keep * x3 + push * o3, keep * x4 + push * o4
    state[_L, a], state[_L + 1, a], state[_L + 2, a] = _clip(x0), _clip(x1), _clip(x2)
    state[_L + 3, a], state[_L + 4, a] = _clip(x3), _clip(x4)
    state[_PRICE, a] = n * _coefficient(x0, 0)
    state[_PRICE + 1, a] = n / dt * _coefficient(x2, 2)
    state[_PRICE + 2, a] = m * _coefficient(x1, 1) + nbar * _coefficient(x3, 3)
    state[_PRICE + 3, a] = n / dt * _coefficient(x4, 4)


@njit(cache=True, nogil=True, error_model="numpy")
def _best(state: Any, rate: Any, home: int, w: float, d: float, r: float, rest: float, fleet_s: float, on: bool) -> int:
    """The server with the smallest score for a task. Args: on: whether prices count."""
    least, arg = math.inf, 0
    for a in range(state.shape[1]):
        f = state[_CAP, a]
        way = r if home == a else r + d
        score = (state[_Q, a] + w) / f + way / rate[a]
        if on:
            price = state[_PRICE, a] * rest + state[_PRICE + 1, a] * fleet_s + state[_PRICE + 2, a]
            score += w / f * (price + w / f * state[_PRICE + 3, a])
        if score < least:
            least, arg = score, a
    return arg


@njit(cache=True, nogil=True, error_model="numpy")
def play(
    theta: Any,
    hidden: int,
    path: Any,
    remember: bool,
    mode: int,
    capacity: Any,
    rate: Any,
    home: Any,
    rank: Any,
    order: Any,
    work_by_index: Any,
    result_by_index: Any,
    chance: Any,
    counts: Any,
    inputs: Any,
    first: Any,
    gaps: Any,
    slot_s: float,
    records: Any,
    stride: int,
    outlook: float,
    least_outlook: int,
    delays: Any,
    until: Any,
) -> Any:
    """Plays an episode; gives the sum of the delays, their number and the number of records.

    Args:
        theta: parameters, flat. hidden: width. path: keep and push of each reverse step, `[I, 2]`.
        remember: whether chains start from the remembered latents, or from zero.
        mode: GREEDY, LIVE or STALE.
        capacity, rate, rank: `[S]`. home: `[B]`, -1 for a station without a server.
        work_by_index, result_by_index: `[N]`.
        order: of the servers whose prices are renewed in turn, `[S]`.
        chance: that a station has a task of an index, `[N]`.
        counts: tasks by slot and station, `[T, B]`. inputs: Mbit, real and imagined, `[2, T, B, N]`.
        first: a station's tasks are of the indices first, first + 1, ... (modulo N) in a slot, `[T, B]`; 0 if STALE.
        gaps: seconds from each slot to the next, `[T]`. slot_s: their usual length.
        records: takes (features, terms of the price, label) of every `stride`-th decision, `[R, F + K + 1]`; with R =
            0 nothing is recorded. The label counts the later tasks of the busy period until slot
            t + outlook t + least_outlook; decisions whose outlook passes the end are left out.
        delays: takes each task's delay in arrival order, `[K]`; with K = 0 nothing is written.
        until: takes the sum of the delays up to each slot, `[T]`, or nothing likewise.
    """
    slots, stations = counts.shape
    servers, kinds = capacity.shape[0], work_by_index.shape[0]
    state = np.zeros((_ROWS, servers))
    own = np.zeros((_ROWS, servers))
    total_f = capacity.sum()
    share_of = capacity / total_f
    state[_CAP], state[_FIXED + 1] = capacity, rank
    state[_N] = stations * chance.sum() * share_of
    state[_W] = stations * (chance * work_by_index).sum() * share_of
    state[_L : _L + _K] = 1.0 / _K
    scalars, feature = np.zeros(8), np.zeros(_F)
    scratch = (feature, np.zeros(hidden), np.zeros(hidden), np.zeros((_K, hidden // 4)))
    net = _layers(theta, hidden, path.shape[0])
    real, tasks, work = np.zeros(servers), np.zeros(servers), np.zeros(servers)
    sent, busy = np.zeros((slots + 1, servers)), np.zeros((slots, servers))
    recorded = records.shape[0]
    at = np.zeros((recorded, 2), np.int64)
    total, number, found, seen = 0.0, 0, 0, 0
    for t in range(slots):
        nbar, wbar, fbar = state[_N].sum() / servers, state[_W].sum() / servers, total_f / servers
        mu = nbar * servers / stations
        load = state[_Q].sum()
        scalars[_TURN], scalars[_REST], scalars[_X] = 0.0, 1.0, load / total_f
        scalars[_NBAR], scalars[_PBAR], scalars[_DT] = nbar, wbar / nbar / fbar, slot_s
        scalars[_OVER] = min(max(wbar / (fbar * slot_s) - 1.0, -1.0), 2.0)
        scalars[_TASKS] = 0.25 * math.log(1.0 + nbar)
        real[:] = state[_Q]
        tasks[:], work[:] = 0.0, 0.0
        if mode != GREEDY:
            for a in range(servers):
                n, w = state[_N, a] + 0.1 * nbar, state[_W, a] + 0.1 * wbar
                state[_FIXED, a] = math.log(capacity[a] / fbar)
                state[_FIXED + 2, a] = math.log(n / (1.1 * nbar))
                state[_FIXED + 3, a] = math.log(w / n * nbar / wbar)
            for a in range(servers):
                _refresh(a, state, scalars, net, path, remember, scratch)
        k, place = 0.0, 0
        for b in range(stations):
            if mode == STALE:
                own[:] = state
                turn, rest, x = scalars[_TURN], scalars[_REST], scalars[_X]
                here = load
                for i in range(counts[t, b]):
                    w, d, r = work_by_index[i], inputs[0, t, b, i], result_by_index[i]
                    a = _best(own, rate, home[b], w, d, r, scalars[_REST], scalars[_X], True)
                    delay = (real[a] + w) / capacity[a] + (r if home[b] == a else r + d) / rate[a]
                    if delays.shape[0]:
                        delays[number] = delay
                    total += delay
                    number += 1
                    real[a] += w
                    own[_Q, a] += w
                    own[_M, a] += 1.0
                    here += w
                    done, left = k + i + 1.0, counts[t, b] - i - 1 + (stations - b - 1) * mu
                    scalars[_TURN], scalars[_REST] = done / (done + left), left / (stations * mu)
                    scalars[_X] = here / total_f
                    _refresh(a, own, scalars, net, path, remember, scratch)
                scalars[_TURN], scalars[_REST], scalars[_X] = turn, rest, x
            for i in range(kinds if mode == STALE else counts[t, b]):
                amount = chance[i] if mode == STALE else 1.0
                j = (first[t, b] + i) % kinds
                w, d, r = work_by_index[j], inputs[1 if mode == STALE else 0, t, b, i], result_by_index[j]
                a = _best(state, rate, home[b], w, d, r, scalars[_REST], scalars[_X], mode != GREEDY)
                if mode != STALE:
                    delay = (state[_Q, a] + w) / capacity[a] + (r if home[b] == a else r + d) / rate[a]
                    if delays.shape[0]:
                        delays[number] = delay
                    total += delay
                    number += 1
                state[_Q, a] += amount * w
                tasks[a] += amount
                if mode == GREEDY:
                    continue
                work[a] += amount * w
                state[_M, a] += amount
                load += amount * w
                k += amount
                place += 1
                own_left = counts[t, b] - i - 1 + (stations - b - 1) * mu
                left = max(stations * mu - k, 0.0) if mode == STALE else own_left
                scalars[_TURN], scalars[_REST] = k / (k + left), left / (stations * mu)
                scalars[_X] = load / total_f
                # the server whose turn it is, and the one that was chosen
                other = order[place % servers]
                if mode == LIVE and other != a:
                    _refresh(other, state, scalars, net, path, remember, scratch)
                _refresh(a, state, scalars, net, path, remember, scratch)
                if recorded:
                    seen += 1
                    if seen % stride == 0 and found < recorded:
                        n = state[_N, a]
                        records[found, :_F] = feature
                        records[found, _F] = n * scalars[_REST]
                        records[found, _F + 1] = state[_M, a]
                        records[found, _F + 2] = n * scalars[_X] / slot_s
                        records[found, _F + 3] = nbar
                        records[found, _F + 4] = n * w / capacity[a] / slot_s
                        records[found, _F + _K] = tasks[a]
                        at[found, 0], at[found, 1] = t, a
                        found += 1
        if until.shape[0]:
            until[t] = total
        share = 1.0 - math.exp(-tasks.sum() / (TASKS_PER_SERVER * servers))
        for a in range(servers):
            state[_N, a] += share * (tasks[a] - state[_N, a])
            state[_W, a] += share * (work[a] - state[_W, a])
            before = state[_Q, a]
            left = max((real[a] if mode == STALE else before) - capacity[a] * gaps[t], 0.0)
            state[_M, a] = state[_M, a] * min(left / before, 1.0) if before > 0 else 0.0
            state[_Q, a] = left
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
