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

from diffpolicy.edge.fleet_features import BIAS, FEATURES, LATENTS, SCALE, TASKS_PER_SERVER

GREEDY, LIVE, STALE = 0, 1, 2
"""Modes: the greedy rule Opt-TS, and the price rule with live or stale information."""

_F, _K = FEATURES, LATENTS
_B0, _B1, _B2, _B3 = BIAS
# columns of a server's state
_Q, _C, _CAP, _RANK, _N, _W, _M, _PRICE, _LATENT = range(9)
# places in the scalars
_TURN, _REST, _FBAR, _NBAR, _WBAR, _PBAR, _RHO, _DT, _X = range(9)


@njit(cache=True, nogil=True)
def _softplus(z: float) -> float:
    return math.log1p(math.exp(-abs(z))) + max(z, 0.0)


@njit(cache=True, nogil=True)
def _network(theta: Any, feature: Any, x: Any, i: int, steps: int, hidden: Any, out: Any) -> None:
    """`SetDenoiser` at step i, 1..I, for one server; theta holds its parameters in their order."""
    width = hidden.shape[0]
    step = (_F + _K + i - 1) * width
    for h in range(width):
        hidden[h] = theta[step + h]
    for j in range(_F):
        for h in range(width):
            hidden[h] += feature[j] * theta[j * width + h]
    for j in range(_K):
        for h in range(width):
            hidden[h] += x[j] * theta[(_F + j) * width + h]
    last = (_F + _K + steps) * width
    for k in range(_K):
        out[k] = theta[last + width * _K + k]
    for h in range(width):
        y = hidden[h] / (1.0 + abs(hidden[h]))
        for k in range(_K):
            out[k] += y * theta[last + h * _K + k]


@njit(cache=True, nogil=True)
def _refresh(a: int, state: Any, scalars: Any, theta: Any, path: Any, remember: bool, work: Any) -> None:
    """Server a's features, its chain, and its price."""
    servers = state.shape[0]
    feature, hidden, out, x = work[:_F], work[_F : -2 * _K], work[-2 * _K : -_K], work[-_K:]
    load, capacity, n, w, m = state[a, _Q] + state[a, _C], state[a, _CAP], state[a, _N], state[a, _W], state[a, _M]
    fleet_s, mean_s, dt, nbar, wbar = scalars[_X], scalars[_PBAR], scalars[_DT], scalars[_NBAR], scalars[_WBAR]
    backlog = load / capacity
    below = 0
    for b in range(servers):
        if (state[b, _Q] + state[b, _C]) * capacity < load * state[b, _CAP]:
            below += 1
    feature[0] = 0.25 * math.log1p(backlog / mean_s)
    feature[1] = 0.25 * math.log1p(fleet_s / mean_s)
    feature[2] = (backlog - fleet_s) / (backlog + fleet_s + mean_s)
    feature[3] = math.log(capacity / scalars[_FBAR])
    feature[4] = state[a, _RANK]
    feature[5] = 2.0 * (below + 0.5) / servers - 1.0
    feature[6] = math.log((n + 0.1 * nbar) / (1.1 * nbar))
    feature[7] = math.log((w + 0.1 * wbar) / (n + 0.1 * nbar) * nbar / wbar)
    feature[8] = min(max(scalars[_RHO] - 1.0, -1.0), 2.0)
    feature[9] = scalars[_TURN]
    feature[10] = 0.25 * math.log1p(m)
    feature[11] = 0.25 * math.log1p(nbar)
    feature[12] = fleet_s / (fleet_s + dt)
    feature[13] = backlog / (backlog + dt)
    for k in range(_K):
        x[k] = state[a, _LATENT + k] if remember else 0.0
    steps = path.shape[0]
    for s in range(steps):
        _network(theta, feature, x, steps - s, steps, hidden, out)
        for k in range(_K):
            x[k] = path[s, 0] * x[k] + path[s, 1] * out[k]
    for k in range(_K):
        state[a, _LATENT + k] = min(max(x[k], -1.0), 1.0)
    state[a, _PRICE] = (
        n * scalars[_REST] * _softplus(SCALE * x[0] + _B0)
        + m * _softplus(SCALE * x[1] + _B1)
        + n * fleet_s / dt * _softplus(SCALE * x[2] + _B2)
        + nbar * _softplus(SCALE * x[3] + _B3)
    )


@njit(cache=True, nogil=True)
def _best(state: Any, rate: Any, home: int, w: float, d: float, r: float, priced: bool) -> int:
    """The server with the smallest score for a task."""
    least, arg = 1e300, 0
    for a in range(state.shape[0]):
        score = (state[a, _Q] + state[a, _C] + w) / state[a, _CAP] + r / rate[a]
        if home != a:
            score += d / rate[a]
        if priced:
            score += w / state[a, _CAP] * state[a, _PRICE]
        if score < least:
            least, arg = score, a
    return arg


@njit(cache=True, nogil=True)
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
    work_by_index: Any,
    result_by_index: Any,
    counts: Any,
    inputs: Any,
    imagined: Any,
    slot_s: float,
    mean_tasks: float,
    mean_work: float,
    records: Any,
    stride: int,
    outlook: float,
    least_outlook: int,
    delays: Any,
) -> Any:
    """Plays an episode; gives the sum of the delays, their number and the number of records.

    Args:
        theta: parameters, flat. hidden: width. path: keep and push of each reverse step, `[I, 2]`.
        remember: whether chains start from the remembered latents, or from zero.
        mode: GREEDY, LIVE or STALE.
        capacity, rate, rank: `[S]`. home: `[B]`. work_by_index, result_by_index: `[N]`.
        counts, imagined: tasks by slot and station, `[T, B]`. inputs: Mbit, `[2, T, B, N]`, real and imagined.
        slot_s: seconds. mean_tasks, mean_work: of all stations in a slot, by the law.
        records: takes (features, terms of the price, label) of every `stride`-th decision, `[R, F + K + 1]`; with R =
            0 nothing is recorded. The label counts the later tasks of the busy period until slot
            t + outlook t + least_outlook; decisions whose outlook passes the end are left out.
        delays: takes each task's delay in arrival order, `[K]`; with K = 0 nothing is written.
    """
    slots, stations = counts.shape
    servers = capacity.shape[0]
    state = np.zeros((servers, _LATENT + _K))
    own = np.zeros((servers, _LATENT + _K))
    total_f = capacity.sum()
    for a in range(servers):
        state[a, _CAP], state[a, _RANK] = capacity[a], rank[a]
        state[a, _N], state[a, _W] = mean_tasks * capacity[a] / total_f, mean_work * capacity[a] / total_f
        state[a, _LATENT:] = 1.0 / _K
    scalars, scratch = np.zeros(9), np.zeros(_F + hidden + 2 * _K)
    real_c, tasks, work = np.zeros(servers), np.zeros(servers), np.zeros(servers)
    sent, busy = np.zeros((slots + 1, servers)), np.zeros((slots, servers))
    recorded = records.shape[0]
    at = np.zeros((recorded, 2), np.int64)
    total, number, found, seen = 0.0, 0, 0, 0
    for t in range(slots):
        nbar, wbar = state[:, _N].sum() / servers, state[:, _W].sum() / servers
        queued = state[:, _Q].sum()
        mu = nbar * servers / stations
        scalars[_FBAR], scalars[_NBAR], scalars[_WBAR], scalars[_DT] = total_f / servers, nbar, wbar, slot_s
        scalars[_PBAR], scalars[_RHO] = wbar / nbar / scalars[_FBAR], wbar * servers / (total_f * slot_s)
        scalars[_TURN], scalars[_REST], scalars[_X] = 0.0, 1.0, queued / total_f
        state[:, _C] = 0.0
        real_c[:], tasks[:], work[:] = 0.0, 0.0, 0.0
        if mode != GREEDY:
            for a in range(servers):
                _refresh(a, state, scalars, theta, path, remember, scratch)
        k = 0
        for b in range(stations):
            if mode == STALE:
                own[:] = state
                done, sent_here = k, state[:, _C].sum()
                for i in range(counts[t, b]):
                    w, d, r = work_by_index[i], inputs[0, t, b, i], result_by_index[i]
                    a = _best(own, rate, home[b], w, d, r, True)
                    delay = (state[a, _Q] + real_c[a] + w) / capacity[a] + r / rate[a]
                    delay += d / rate[a] if home[b] != a else 0.0
                    if delays.shape[0]:
                        delays[number] = delay
                    total += delay
                    number += 1
                    real_c[a] += w
                    own[a, _C] += w
                    own[a, _M] += 1.0
                    sent_here += w
                    done += 1
                    rest = counts[t, b] - i - 1 + (stations - b - 1) * mu
                    scalars[_TURN], scalars[_REST] = done / (done + rest), rest / (stations * mu)
                    scalars[_X] = (queued + sent_here) / total_f
                    _refresh(a, own, scalars, theta, path, remember, scratch)
            count = imagined[t, b] if mode == STALE else counts[t, b]
            which = 1 if mode == STALE else 0
            here = state[:, _C].sum()
            for i in range(count):
                w, d, r = work_by_index[i], inputs[which, t, b, i], result_by_index[i]
                a = _best(state, rate, home[b], w, d, r, mode != GREEDY)
                if mode != STALE:
                    delay = (state[a, _Q] + state[a, _C] + w) / capacity[a] + r / rate[a]
                    delay += d / rate[a] if home[b] != a else 0.0
                    if delays.shape[0]:
                        delays[number] = delay
                    total += delay
                    number += 1
                state[a, _C] += w
                tasks[a] += 1.0
                if mode == GREEDY:
                    continue
                work[a] += w
                state[a, _M] += 1.0
                here += w
                k += 1
                rest = count - i - 1 + (stations - b - 1) * mu
                scalars[_TURN], scalars[_REST] = k / (k + rest), rest / (stations * mu)
                scalars[_X] = (queued + here) / total_f
                _refresh(a, state, scalars, theta, path, remember, scratch)
                if recorded:
                    seen += 1
                    if seen % stride == 0 and found < recorded:
                        records[found, :_F] = scratch[:_F]
                        records[found, _F] = state[a, _N] * scalars[_REST]
                        records[found, _F + 1] = state[a, _M]
                        records[found, _F + 2] = state[a, _N] * scalars[_X] / slot_s
                        records[found, _F + 3] = nbar
                        records[found, _F + 4] = tasks[a]
                        at[found, 0], at[found, 1] = t, a
                        found += 1
        share = 1.0 - math.exp(-tasks.sum() / (TASKS_PER_SERVER * servers))
        for a in range(servers):
            state[a, _N] += share * (tasks[a] - state[a, _N])
            state[a, _W] += share * (work[a] - state[a, _W])
            before = state[a, _Q] + state[a, _C]
            true = before if mode != STALE else state[a, _Q] + real_c[a]
            left = max(true - capacity[a] * slot_s, 0.0)
            state[a, _M] = state[a, _M] * min(left / before, 1.0) if before > 0 else 0.0
            state[a, _Q] = left
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
        records[kept, _F + _K] = sent[end + 1, a] - sent[t, a] - records[i, _F + 4]
        kept += 1
    return total, number, kept
