"""The law of the price in compiled form (numba, extra `fleet`), one server and one task at a time, in float64.

It is the only second form of `law` and `chains`; tests hold them equal. Acting (`compiled_placing`), the player of a
task file (`whole_file`) and that of training (`training.episode`) are made of its `renew` and `priced_s`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from diffpolicy._compile import compile as compile  # noqa: A004
from diffpolicy.edge.pricing.chains import BUSY, LEAST_OVERLOAD, LONG, OVER, GatedChain, PriceChain
from diffpolicy.edge.pricing.law import BIAS, CEILING, FEATURES, LATENTS, SCALE

_F, _K = FEATURES, LATENTS
_BIAS = np.array(BIAS)
_BUSY, _LONG = ((math.log1p(least), math.log1p(most)) for least, most in (BUSY, LONG))


class State(NamedTuple):
    """A fleet within a slot, as rows of one block. Args: `[S]` each, or `[4, S]` terms and fixed, `[K, S]` latent."""

    load: Any
    capacity: Any
    tasks: Any
    work: Any
    waiting: Any
    terms: Any
    latent: Any
    fixed: Any


ROWS = 5 + 4 + _K + 4
"""Of a block."""
CAPACITY, RANK, SHARE, TASK_WORK = range(4)
"""Rows of `fixed`, the features that do not change within a slot."""


class Moment(NamedTuple):
    """What changes from task to task, then what all servers share. Args: see `law.Features` and `law.Whole`."""

    turn: float
    rest: float
    fleet_s: float
    tasks: float
    service_s: float
    step_s: float
    overload: float
    of_tasks: float
    number: float
    weight: float


class Network(NamedTuple):
    """The parameters of one `SetDenoiser` and its chain, or of M = 3 that are gated; the first axis is of these.

    Args:
        of_condition, of_x, of_step, out_bias: as there. out: the outputs' weights as rows, `[M, K, H]`.
        path: i - 1, keep and push of each reverse step, `[M, I, 3]`. steps: how many of them there are, int64 `[M]`.
        remember: whether a chain starts from the latents.
    """

    of_condition: Any
    of_x: Any
    of_step: Any
    out: Any
    out_bias: Any
    path: Any
    steps: Any
    remember: bool


class Scratch(NamedTuple):
    """Room. Args: feature: `[F]`. base, hidden: `[H]`. sums: `[K, H / 4]`. share: `[M]`, of `chains.shares`."""

    feature: Any
    base: Any
    hidden: Any
    sums: Any
    share: Any


@compile
def rows_of(block: Any) -> State:
    """The rows of a block `[ROWS, S]` by name."""
    return State(
        block[0], block[1], block[2], block[3], block[4], block[5:9], block[9 : 9 + _K], block[9 + _K : 13 + _K]
    )


@compile
def room(network: Network) -> Scratch:
    """Scratch for a network."""
    sets, hidden = network.out.shape[0], network.out.shape[2]
    return Scratch(np.zeros(_F), np.zeros(hidden), np.zeros(hidden), np.zeros((_K, hidden // 4)), np.ones(sets))


@compile
def moved_on(moment: Moment, turn: float, rest: float, fleet_s: float) -> Moment:
    """Another moment of the same slot."""
    m = moment
    return Moment(turn, rest, fleet_s, m.tasks, m.service_s, m.step_s, m.overload, m.of_tasks, m.number, m.weight)


@compile
def coefficient(x: float, k: int) -> float:
    """`law.coefficients`."""
    z: float = SCALE * x + _BIAS[k]
    return math.log(1.0 + math.exp(-abs(z))) + max(z, 0.0)


@compile
def clip(x: float) -> float:
    """From -1 to 1; what is no number stays so, for a caller to see."""
    if x > 1.0:
        return 1.0
    return -1.0 if x < -1.0 else x


@compile
def saturating(x: float) -> float:
    """`law.saturating`."""
    return 0.25 * math.log((1.0 + x) / (1.0 + x / CEILING))


@compile
def set_shares(share: Any, overload: float, fleet_fill: float) -> None:
    """`chains.shares`."""
    age = math.log1p(fleet_fill / (1.0 - fleet_fill) / max(overload, LEAST_OVERLOAD))
    long = min(max((age - _LONG[0]) / (_LONG[1] - _LONG[0]), 0.0), 1.0)
    busy = min(max((age - _BUSY[0]) / (_BUSY[1] - _BUSY[0]), 0.0), 1.0)
    busy *= min(max((overload - OVER[0]) / (OVER[1] - OVER[0]), 0.0), 1.0)
    share[0], share[1], share[2] = (1.0 - long) * (1.0 - busy), (1.0 - long) * busy, long


@compile
def renew(a: int, state: State, moment: Moment, up: Any, network: Network, scratch: Scratch) -> None:
    """Server a's features (`law.features`), its chain (`PriceChain`), and the terms of its price (`law.terms`)."""
    feature, base, hidden, sums, share = scratch
    servers, width = state.load.shape[0], base.shape[0]
    load, capacity, n, m = state.load[a], state.capacity[a], state.tasks[a], state.waiting[a]
    fleet_s, mean_s, dt, nbar = moment.fleet_s, moment.service_s, moment.step_s, moment.tasks
    backlog = load / capacity
    below = 0
    for b in range(servers):
        below += up[b] & (state.load[b] * capacity < load * state.capacity[b])
    feature[0] = saturating(backlog / mean_s)
    feature[1] = saturating(fleet_s / mean_s)
    feature[2] = (backlog - fleet_s) / (backlog + fleet_s + mean_s)
    feature[3], feature[4] = state.fixed[CAPACITY, a], state.fixed[RANK, a]
    feature[5] = 2.0 * (below + 0.5) / moment.number - 1.0
    feature[6], feature[7] = state.fixed[SHARE, a], state.fixed[TASK_WORK, a]
    feature[8], feature[9] = moment.overload, moment.turn
    feature[10], feature[11] = saturating(m), moment.of_tasks
    feature[12], feature[13] = fleet_s / (fleet_s + dt), backlog / (backlog + dt)
    # `SetDenoiser` of one server. The F = 14 features and K = 5 latents are written out, and the units of an output are
    # summed in four parts at once, so that all of it becomes vector instructions: two thirds of the time of plain loops
    f0, f1, f2, f3, f4, f5, f6 = feature[0], feature[1], feature[2], feature[3], feature[4], feature[5], feature[6]
    f7, f8, f9, g0, g1, g2, g3 = feature[7], feature[8], feature[9], feature[10], feature[11], feature[12], feature[13]
    latent, part, sets = state.latent, width // 4, share.shape[0]
    y0, y1, y2, y3, y4 = 0.0, 0.0, 0.0, 0.0, 0.0
    if sets > 1:
        set_shares(share, moment.overload, feature[12])
    for of in range(sets):
        if share[of] == 0.0:
            continue
        of_condition, of_x, out, out_bias = (
            network.of_condition[of],
            network.of_x[of],
            network.out[of],
            network.out_bias[of],
        )
        for h in range(width):
            z = f0 * of_condition[0, h] + f1 * of_condition[1, h] + f2 * of_condition[2, h] + f3 * of_condition[3, h]
            z += f4 * of_condition[4, h] + f5 * of_condition[5, h] + f6 * of_condition[6, h] + f7 * of_condition[7, h]
            w = f8 * of_condition[8, h] + f9 * of_condition[9, h]
            z += w + g0 * of_condition[10, h] + g1 * of_condition[11, h]
            base[h] = z + (g2 * of_condition[12, h] + g3 * of_condition[13, h])
        x0, x1, x2, x3, x4 = 0.0, 0.0, 0.0, 0.0, 0.0
        if network.remember:
            x0, x1, x2, x3, x4 = latent[0, a], latent[1, a], latent[2, a], latent[3, a], latent[4, a]
        for s in range(network.steps[of]):
            of_now = network.of_step[of, int(network.path[of, s, 0])]
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
            keep, push = network.path[of, s, 1], network.path[of, s, 2]
            x0, x1, x2 = keep * x0 + push * o0, keep * x1 + push * o1, keep * x2 + push * o2
            x3, x4 = keep * x3 + push * o3, keep * x4 + push * o4
        y0, y1, y2 = y0 + share[of] * x0, y1 + share[of] * x1, y2 + share[of] * x2
        y3, y4 = y3 + share[of] * x3, y4 + share[of] * x4
    latent[0, a], latent[1, a], latent[2, a], latent[3, a], latent[4, a] = (
        clip(y0),
        clip(y1),
        clip(y2),
        clip(y3),
        clip(y4),
    )
    weight = moment.weight
    state.terms[0, a] = n * (weight * coefficient(y0, 0))
    state.terms[1, a] = n / dt * (weight * coefficient(y2, 2))
    state.terms[2, a] = m * (weight * coefficient(y1, 1)) + nbar * (weight * coefficient(y3, 3))
    state.terms[3, a] = n / dt * (weight * coefficient(y4, 4))


@compile
def priced_s(a: int, state: State, moment: Moment, service_s: float) -> float:
    """What a task costs those behind it on server a, seconds: `law.price` times the seconds that it takes."""
    terms = state.terms
    at_once: float = terms[0, a] * moment.rest + terms[1, a] * moment.fleet_s + terms[2, a]
    cost: float = service_s * (at_once + service_s * terms[3, a])
    return cost


def network_of(chain: PriceChain | GatedChain) -> Network:
    """A chain, or several that are gated, as the compiled form takes them."""
    nets = [each.denoiser for each in chain.chains]
    paths = [np.array([[step.i - 1, step.keep, step.push] for step in each.path]) for each in chain.chains]
    return networks(
        [(net.of_condition, net.of_x, net.of_step, net.out.T, net.out_bias) for net in nets], paths, chain.remember
    )


def networks(sets: Sequence[tuple[Any, ...]], paths: Sequence[Any], remember: bool) -> Network:
    """One or three sets of parameters side by side.

    Args:
        sets: of_condition, of_x, of_step, out and out_bias of each; tensors or arrays. paths, remember: see `Network`.
    """
    rows = max(max(len(path), len(x[2])) for path, x in zip(paths, sets, strict=True))

    def stacked(parts: Iterable[Any]) -> Any:
        return np.ascontiguousarray(
            np.stack([part.detach().numpy() if isinstance(part, Tensor) else part for part in parts])
        )

    def padded(x: Any) -> Any:
        array = stacked([x])[0]
        return np.concatenate([array, np.zeros((rows - len(array), array.shape[1]))])

    of_condition, of_x, of_step, out, out_bias = zip(*sets, strict=True)
    return Network(
        stacked(of_condition),
        stacked(of_x),
        stacked(padded(x) for x in of_step),
        stacked(out),
        stacked(out_bias),
        stacked(padded(path) for path in paths),
        np.array([len(path) for path in paths]),
        remember,
    )
