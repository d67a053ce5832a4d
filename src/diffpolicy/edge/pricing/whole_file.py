"""A compiled player of a task file under the learned price: the live decisions of `FleetRule`, step after step.

It is made of the compiled form of the law and of its placing; what it adds is what `FleetRule` and the environment do
between the steps. Tests hold it equal to them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffpolicy._types import Floats, Ints
from diffpolicy.edge.physics.file_steps import FileSteps
from diffpolicy.edge.pricing import compiled, heard
from diffpolicy.edge.pricing.chains import GatedChain, PriceChain
from diffpolicy.edge.pricing.compiled import (
    CAPACITY,
    RANK,
    ROWS,
    SHARE,
    TASK_WORK,
    Network,
    network_of,
    room,
    rows_of,
)
from diffpolicy.edge.pricing.compiled_placing import begin, place_one
from diffpolicy.edge.pricing.law import LATENTS, TASKS_PER_SERVER
from diffpolicy.edge.pricing.state import FleetState

_K = LATENTS


class File(NamedTuple):
    """What comes.

    Args:
        starts, duration_s: of the steps, as in `FileSteps`. home, input_mbit, result_mbit, work: of the tasks, `[K]`.
        own, own_left, unheard: tasks of its own station in the step of each, those of them that come after it, and
            stations that were not heard of by then, `[K]`. stations: as the rule counts them.
        mixed: in which steps the rule takes stations to come mixed, bool `[T]`.
    """

    starts: Any
    duration_s: Any
    home: Any
    input_mbit: Any
    result_mbit: Any
    work: Any
    own: Any
    own_left: Any
    unheard: Any
    stations: float
    mixed: Any


@compiled.compile
def _known(state: Any, step_s: float, weight: float) -> Any:
    """What a slot begins with: the fixed features; gives the last fields of a moment, and the fleet's capacity."""
    servers = state.load.shape[0]
    total_f, n, w, count = 0.0, 0.0, 0.0, float(servers)
    for a in range(servers):
        total_f += state.capacity[a]
        n += state.tasks[a]
        w += state.work[a]
    n, w = max(n / count, 1e-9), max(w / count, 1e-12)
    for a in range(servers):
        own_n, own_w = state.tasks[a] + 0.1 * n, state.work[a] + 0.1 * w
        state.fixed[CAPACITY, a] = math.log(state.capacity[a] * count / total_f)
        state.fixed[SHARE, a] = math.log(own_n / (1.1 * n))
        state.fixed[TASK_WORK, a] = math.log(own_w / own_n * n / w)
    overload = min(max(w * count / (total_f * step_s) - 1.0, -1.0), 2.0)
    of_tasks, service_s = 0.25 * math.log1p(n), w / n * count / total_f
    return np.array([n, service_s, step_s, overload, of_tasks, count, weight]), total_f


@compiled.compile
def _play(
    block: Any, file: File, rate: Any, order: Any, network: Network, step_s: float, weight: float, chosen: Any
) -> None:
    """Plays a file.

    Args:
        block: the fleet before the first task, `[ROWS, S]`, which moves on. rate: of the links, `[S]`.
        order: of the servers whose prices are renewed in turn, `[S]`. chosen: takes the decisions, `[K]`.
    """
    starts, duration_s, home, input_mbit, result_mbit, works, own, own_left, unheard, stations, mixed = file
    state, servers = rows_of(block), rate.shape[0]
    capacity, up = state.capacity, np.ones(servers, np.bool_)
    scratch = room(network)
    longest = np.max(starts[1:] - starts[:-1])
    delay_s, service_s = np.zeros((longest, servers)), np.zeros((longest, servers))
    turn, rest, amount = np.zeros(longest), np.ones(longest + 1), np.ones(longest)
    sent, queue, came = np.zeros((2, servers)), np.zeros(servers), np.zeros(servers)
    no_candidates, no_parts = np.zeros((longest, 0), np.int64), np.zeros((0, ROWS, servers))
    for t in range(duration_s.shape[0]):
        first, tasks = starts[t], starts[t + 1] - starts[t]
        for a in range(servers):
            before = state.load[a]
            state.waiting[a] *= min(queue[a] / before, 1.0) if before > 0 else 0.0
            state.load[a] = queue[a]
        of, total_f = _known(state, step_s, weight)
        begin(state, up, total_f, of, network, scratch)
        usual = of[0] * servers
        mu = usual / stations
        for k in range(tasks):
            i = first + k
            left = own_left[i] + unheard[i] * mu
            if mixed[t]:
                both = max(usual - (k + 1), 0.0) + usual * (own_left[i] / own[i])
                left = max(0.5 * both, float(own_left[i]))
            turn[k], rest[k + 1] = (k + 1) / (k + 1 + left), left / (stations * mu)
            for a in range(servers):
                service = works[i] / capacity[a]
                way = 0.0 if home[i] == a else input_mbit[i] / rate[a]
                delay_s[k, a], service_s[k, a] = service + result_mbit[i] / rate[a] + way, service
        sent[:] = 0.0
        here = chosen[first : first + tasks]
        of_step = (
            delay_s[:tasks],
            service_s[:tasks],
            amount[:tasks],
            turn[:tasks],
            rest[:tasks],
            order,
            no_candidates[:tasks],
        )
        place_one(block, up, total_f, of, of_step, network, scratch, sent, here, no_parts)
        # what `FleetRule` remembers
        share = 1.0 - math.exp(-sent[0].sum() / (TASKS_PER_SERVER * servers))
        came[:] = 0.0
        for k in range(tasks):
            came[here[k]] += works[first + k]
        for a in range(servers):
            state.tasks[a] += share * (sent[0, a] - state.tasks[a])
            state.work[a] += share * (sent[1, a] - state.work[a])
            queue[a] = max(queue[a] + came[a] - capacity[a] * duration_s[t], 0.0)


def mixed_steps(steps: FileSteps) -> Any:
    """In which steps stations are taken to come mixed, by the steps before, bool `[T]`; see `heard.mixed`."""
    spans = torch.as_tensor(steps.spans()).nan_to_num(-1.0)
    each = heard.span_learned(torch.zeros(len(spans), 2, dtype=torch.float64), spans).cumsum(0)
    return heard.mixed(torch.cat([torch.zeros(1, 2, dtype=torch.float64), each[:-1]])).numpy()


def play(
    steps: FileSteps, begun: FleetState, order: Tensor, chain: PriceChain | GatedChain, *, single: bool, learns: bool
) -> tuple[Ints, Floats]:
    """The decisions of a file's tasks, int64 `[K]`, and the latents after them, `[K, S]`.

    Args:
        steps: the file. begun: the fleet as its first step begins, of which no more is read than what is known of it.
        order: of all servers, int64 `[S]`, in which each task renews one beside the chosen.
        single: whether each step is one request, so that nobody else's is waited for.
        learns: whether the order in which stations come is learned.
    """
    block = np.zeros((ROWS, len(order)))
    state, servers = rows_of(block), begun.servers
    state.capacity[:], state.fixed[RANK] = servers.capacity[0].numpy(), servers.capacity_rank[0].numpy()
    state.tasks[:], state.work[:], state.latent[:] = servers.tasks[0].numpy(), servers.work[0].numpy(), 1 / _K
    tasks, (own_left, unheard) = steps.tasks, steps.coming()
    file = File(
        steps.starts,
        steps.duration_s,
        tasks.origin.numpy(),
        tasks.input_mbit.numpy(),
        tasks.result_mbit.numpy(),
        tasks.work_gcycles.numpy(),
        own_left + steps.place + 1,
        own_left,
        0 * unheard if single else unheard,
        1.0 if single else float(steps.stations),
        mixed_steps(steps) if learns and not single and steps.stations > 1 else np.zeros(len(steps.counts), np.bool_),
    )
    chosen = np.zeros(len(steps.place), np.int64)
    rate = steps.fleet.rate_mbit_per_s.numpy()
    _play(block, file, rate, order.numpy(), network_of(chain), begun.step_s, float(begun.weight), chosen)
    return chosen, state.latent
