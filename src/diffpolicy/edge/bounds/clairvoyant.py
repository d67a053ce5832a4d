"""The best assignment of an episode that is known: a local search that sees the whole episode, exact to each move.

No rule can play it, since it knows what will arrive and when the episode ends. It shows from above how far a rule is
from the best, as `bounds.pooled_bound` does from below.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffpolicy._types import Floats, Ints
from diffpolicy.edge.bounds.episode import Episode
from diffpolicy.errors import InputError

HEAT = 0.04
"""Of 0.02 to 1 the best, or near it, on lad-ts at 25 and 40 tasks; episodes of a few tasks need about 1."""


@dataclass(frozen=True)
class BestKnown:
    """What a search found.

    Args:
        server: decisions `[K]`. mean_delay_s: theirs. start_s: mean delay of the decisions that it started from.
        by_sweep_s: mean delay after each sweep, noisy ones included, `[sweeps]`.
        moved: tasks that the last sweep moved; 0: no move of a single task shortens the total.
    """

    server: Ints
    mean_delay_s: float
    start_s: float
    by_sweep_s: Floats
    moved: int


def best_known(
    episode: Episode, *, sweeps: int = 24, seed: int = 0, heat: float = HEAT, start: Ints | None = None
) -> BestKnown:
    """Searches for a good assignment of a known episode.

    A third of the sweeps only descends; then sweeps weigh costs with Gumbel noise that fades, to leave local minima;
    the last quarter only descends again. The best of all sweeps is returned, never worse than the start. The result
    depends on the arguments alone, not on time.

    Args:
        episode: the tasks. sweeps: at least 1. seed: of the noise.
        heat: scale of the first noise as a share of the mean delay; 0: none.
        start: decisions to start from, `[K]`; those of `opt-ts` if None.

    Raises:
        InputError: no sweep, a negative seed or heat, or decisions that do not fit the episode.

    Example:
        >>> found = best_known(Episode.of(Scenario.load("lad-ts").override(slots=2)), sweeps=4)
        >>> found.mean_delay_s < found.start_s
        True
    """
    if sweeps < 1 or seed < 0:
        raise InputError(f"sweeps must be at least 1 and seed at least 0, got {sweeps} and {seed}")
    if not 0 <= heat < np.inf:
        raise InputError(f"heat must be a number of at least 0, got {heat}")
    server = episode.greedy() if start is None else _checked(start, episode)
    best, mean_s = server, float(episode.delays_s(server).mean())
    start_s, rng, history, moved = mean_s, np.random.default_rng(seed), [], 0
    first, last = sweeps // 3, sweeps - -(-sweeps // 4)
    for n in range(sweeps):
        fade = (last - n) / (last - first) if first <= n < last else 0.0
        server, moved = sweep(episode, server, heat * mean_s * fade, rng)
        history.append(float(episode.delays_s(server).mean()))
        if history[-1] < mean_s:
            best, mean_s = server, history[-1]
    return BestKnown(best, mean_s, start_s, np.array(history), moved)


def sweep(
    episode: Episode, server: Ints, noise_s: float = 0.0, rng: np.random.Generator | None = None
) -> tuple[Ints, int]:
    """Takes each task in order of arrival and puts it where the total delay of all tasks is least, the others fixed.

    The total as a function of one task's server is exact: its own delay, what it costs the later tasks of the step
    (w / f each), and what the longer queue at the end of the step costs the tasks of later steps. A queue of x at the
    start of a step makes the queue of a later step s longer by (x - idle_s)+, with idle_s the capacity that stays
    unused in between if x is 0; so it costs sum_s n_s (x - idle_s)+ / f, n_s the tasks that step s sends there.
    Without noise the total never grows.

    Args:
        episode: the tasks. server: decisions, `[K]`; not changed.
        noise_s: scale of Gumbel noise in the costs, drawn from `rng`.

    Returns:
        New decisions `[K]`, and the number of tasks that moved.
    """
    f, steps = episode.capacity_gcycles_per_s, len(episode.duration_s)
    number, sent = episode.sent(server)
    net = sent - episode.duration_s[:, None] * f
    alone_s = episode.transfer_s + episode.work_gcycles[:, None] / f
    bounds = np.searchsorted(episode.step, np.arange(steps + 1))
    result, queue = server.copy(), np.zeros_like(f)
    for t in range(steps):
        rows = slice(bounds[t], bounds[t + 1])
        work = episode.work_gcycles[rows]
        most = float((queue + sent[t].sum() - f * episode.duration_s[t]).max())
        idle, follow = _after(net[t + 1 :], number[t + 1 :], most)
        end, later, ahead = queue + net[t], number[t].astype(float), queue.copy()
        noise = rng.gumbel(size=(len(work), len(f))) * noise_s if rng is not None and noise_s > 0 else None
        for k, (w, a) in enumerate(zip(work.tolist(), result[rows].tolist(), strict=True)):
            end[a] -= w
            later[a] -= 1
            cost = ahead + w * later
            if len(idle):
                longer = np.maximum(np.maximum(end + w, 0) - idle, 0) - np.maximum(np.maximum(end, 0) - idle, 0)
                cost += np.einsum("ts,ts->s", longer, follow)
            cost = cost / f + alone_s[rows.start + k]
            if noise is not None:
                cost -= noise[k]
            b = int(cost.argmin())
            b = a if cost[b] > cost[a] - 1e-12 * abs(cost[a]) else b
            result[rows.start + k] = b
            end[b] += w
            ahead[b] += w
        queue = np.maximum(end, 0)
    return result, int((result != server).sum())


def _after(net: Floats, number: Ints, most: float) -> tuple[Floats, Floats]:
    """Idle capacity before each later step and the tasks that it sends, `[steps, S]`, as far as a queue can reach."""
    before = np.concatenate([np.zeros((1, net.shape[1])), net.cumsum(0)])[:-1] if len(net) else net
    idle = np.maximum(-np.minimum.accumulate(before, 0), 0)
    reach = int((idle.min(1) < most).sum()) if len(idle) else 0
    return idle[:reach], number[:reach].astype(float)


def _checked(server: Ints, episode: Episode) -> Ints:
    given = np.asarray(server)
    servers = len(episode.capacity_gcycles_per_s)
    if given.shape != episode.step.shape:
        raise InputError(f"start must hold {len(episode.step)} decisions, got shape {list(given.shape)}")
    if given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= servers:
        raise InputError(f"start must hold server indices from 0 to {servers - 1}, got {given.min()} to {given.max()}")
    return given.astype(np.int64)
