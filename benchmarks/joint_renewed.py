"""A beam over the bundled policy's own scores, whose prices are renewed after each task: of width 1 it is that policy.

A partial assignment costs the sum of its scores, each of own delay and price as the server is after the tasks before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpolicy._compile import compile  # noqa: A004
from diffpolicy.edge.pricing.chains import PriceChain
from diffpolicy.edge.pricing.compiled import Moment, Network, moved_on, network_of, priced_s, renew, room, rows_of
from diffpolicy.edge.pricing.compiled_placing import _packed
from diffpolicy.edge.pricing.imagined import Met
from joint_search import keep_least


@compile
def _beam(block: Any, up: Any, total_f: float, of: Any, queue: Any, count: int, network: Network, width: int) -> Any:
    """Servers of a station's tasks, `[n]`.

    Args:
        block, up, total_f, of: see `compiled_placing.place_one`. count: n.
        queue: delay_s and service_s, `[n, S]`, turn and rest, `[n]`. width: partial assignments that are kept.
    """
    delay_s, service_s, turns, rests = queue
    servers, scratch, kept = up.shape[0], room(network), 1
    blocks, loads, total = np.zeros((width, *block.shape)), np.zeros(width), np.zeros(width)
    chosen, turn = np.zeros((width, count), np.int64), 0.0
    blocks[0] = block
    for a in range(servers):
        loads[0] += block[0, a] * up[a]
    for i in range(count):
        least, source, number = np.full(width, np.inf), np.zeros(width, np.int64), 0
        for w in range(kept):
            state = rows_of(blocks[w])
            moment = Moment(turn, rests[i], loads[w] / total_f, of[0], of[1], of[2], of[3], of[4], of[5], of[6])
            for a in range(servers):
                score = delay_s[i, a] + state.load[a] / state.capacity[a] + priced_s(a, state, moment, service_s[i, a])
                score += total[w]
                number = keep_least(least, source, number, score, w * servers + a)
        turn = turns[i]
        new_blocks, new_loads, new_chosen = np.zeros_like(blocks), np.zeros(width), np.zeros_like(chosen)
        for k in range(number):
            w, a = source[k] // servers, source[k] % servers
            new_blocks[k], new_chosen[k] = blocks[w], chosen[w]
            new_chosen[k, i] = a
            state = rows_of(new_blocks[k])
            work = service_s[i, a] * state.capacity[a]
            state.load[a] += work
            state.waiting[a] += 1.0
            new_loads[k] = loads[w] + work * up[a]
            moment = Moment(turn, rests[i], 0.0, of[0], of[1], of[2], of[3], of[4], of[5], of[6])
            renew(a, state, moved_on(moment, turn, rests[i], new_loads[k] / total_f), up, network, scratch)
        blocks, loads, chosen, total, kept = new_blocks, new_loads, new_chosen, least, number
    return chosen[0].copy()


def beam_renewed(met: Met, chain: PriceChain, width: int, *, ahead: bool) -> Tensor:
    """Servers of the tasks of stations at their turn, int64 `[R, N]`.

    Args:
        met: see there. chain: the network. width: partial assignments that are kept.
        ahead: whether the price counts the station's own tasks still to come, as the bundled policy's does.
    """
    blocks, about = _packed(met.found)
    queue, network = met.queue, network_of(chain)
    rest = queue.rest if ahead else met.left.expand_as(queue.rest)
    given = [x.contiguous().numpy() for x in (queue.delay_s, queue.service_s, queue.turn, rest)]
    chosen = torch.zeros(queue.turn.shape, dtype=torch.int64)
    for r, count in enumerate(queue.amount.sum(-1).long().tolist()):
        of = tuple(x[r] for x in given)
        servers = _beam(blocks[r].numpy(), *(x[r] for x in about), of, count, network, width)
        chosen[r, :count] = torch.from_numpy(servers)
    return chosen
