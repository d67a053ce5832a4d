"""Bounds that no assignment of an episode beats.

They hold for assignments that know the whole episode beforehand, so for every rule and policy.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from diffpolicy.edge.bounds.episode import Episode


@dataclass(frozen=True)
class LowerBound:
    """No assignment of the episode has a smaller mean delay than `mean_delay_s`, the largest of three bounds.

    Args:
        srpt_s: pooled, preemptive, shortest remaining work first. mean_busy_s: pooled, by mean busy times.
        alone_s: each task on its best server as if it were the only one.
    """

    srpt_s: float
    mean_busy_s: float
    alone_s: float

    @property
    def mean_delay_s(self) -> float:
        """The largest of the three, seconds."""
        return max(self.srpt_s, self.mean_busy_s, self.alone_s)


def pooled_bound(episode: Episode) -> LowerBound:
    """A lower bound on the mean delay of every assignment of an episode, even of one that knows all of it beforehand.

    A task's delay is its transfer tau_ja plus its time in the queue C_j - r_j, where r_j is its arrival, at the start
    of its step (the model lets the queue run during the transfer, so the two add up), and C_j is when its server has
    done it; queues drain after the last step. An assignment is a schedule in which server a works at the rate f_a, on
    one task after the other. Three relaxations, each with all schedules of the model among its own:

    `srpt_s`: transfers cost the least that any server takes; the fleet becomes one machine of capacity F = sum f that
    may interrupt tasks and divide itself among them. At every moment it can work on each task exactly as the fleet
    does, so its least sum of C_j, which shortest remaining work first attains (Schrage 1968), is no larger.

    `mean_busy_s`: let M_j be the mean of the moments at which work is done on j. A server does a task at one stretch at
    the rate f_a, so C_j = M_j + w_j / (2 f_a). The least of tau_ja + w_j / (2 f_a) over a bounds what does not depend
    on time. On the pooled machine sum M_j = sum of integral t x_j(t) dt / w_j, with x_j the rate of work on j, is
    linear in x, so that the available task of the largest 1 / w_j goes first, and may be interrupted (Goemans et al.,
    "Single machine scheduling with release dates", 2002). It keeps what the pooled machine loses: that a task is done
    at the speed of one server.

    `alone_s`: nobody waits; the mean of min_a tau_ja + w_j / f_a.

    What none of them keeps is the order of service: the bound does first what is small, also if it came last.
    """
    f, k = episode.capacity_gcycles_per_s, len(episode.step)
    run_s = episode.work_gcycles[:, None] / f
    arrival_s = float(np.r_[0, episode.duration_s.cumsum()][episode.step].sum())
    ends, _ = _pooled(episode, by_remaining=True)
    _, busy = _pooled(episode, by_remaining=False)
    return LowerBound(
        float((ends - arrival_s) / k + episode.transfer_s.min(1).mean()),
        float((busy - arrival_s) / k + (episode.transfer_s + run_s / 2).min(1).mean()),
        float((episode.transfer_s + run_s).min(1).mean()),
    )


def _pooled(episode: Episode, *, by_remaining: bool) -> tuple[float, float]:
    """Sums of the ends C and of the mean busy times M on one machine that prefers little work, seconds.

    Args:
        by_remaining: prefers what has the least work left instead of the least work.
    """
    capacity = float(episode.capacity_gcycles_per_s.sum())
    clock = np.r_[0, episode.duration_s.cumsum()]
    first = np.searchsorted(episode.step, np.arange(len(clock))).tolist()
    work, heap = episode.work_gcycles.tolist(), list[tuple[float, float, float]]()
    ends = busy = 0.0
    for t, (now, until) in enumerate(zip(clock[:-1].tolist(), [*clock[1:-1].tolist(), np.inf], strict=True)):
        for w in work[first[t] : first[t + 1]]:
            heapq.heappush(heap, (w, w, w))
        while heap and now < until:
            key, left, w = heapq.heappop(heap)
            end = min(now + left / capacity, until)
            if end < until:
                ends, done = ends + end, left
            else:
                done = min((until - now) * capacity, left)
                heapq.heappush(heap, (left - done if by_remaining else key, left - done, w))
            busy += (done / w if w else float(end < until)) * (now + end) / 2
            now = end
    return ends, busy
