"""Images a second: by batches within one process, by requests side by side behind a URL."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from diffpolicy.edge.hardware.schema.records import Point, Throughput
from diffpolicy.edge.hardware.server_adapter import CallRefusedError, GenerateRequest, ServerAdapter

GAIN = 1.1
"""Throughput over that of fewer requests at once, from which on more of them are worth sending."""
CALLS_EACH = 3
"""Calls of each thread, so that the last ones, which run alone, do not weigh too much."""


def serial_throughput(points: Sequence[Point]) -> tuple[Throughput, ...]:
    """One request at a time: images of a batch over the median of its time, with the most steps of each size."""
    most: dict[tuple[int, int, int], Point] = {}
    for point in sorted(points, key=lambda p: p.steps):
        most[point.size] = point
    return tuple(
        Throughput(1, p.batch, p.width, p.height, p.steps, p.batch / p.latency_s.p50)
        for p in most.values()
        if p.latency_s.p50 > 0
    )


def levels(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    return sorted({most, *(2**i for i in range(most.bit_length()) if 2**i <= most)})


def concurrent_throughput(adapter: ServerAdapter, requests: Sequence[GenerateRequest], concurrency: int) -> Throughput:
    """So many threads send requests of one size without a pause; images over the time of all.

    Raises:
        CallRefusedError: a request was refused, or the server made it wait, so that it does not take so many at once.
    """
    pool = ThreadPoolExecutor(concurrency)
    begun = time.perf_counter()
    try:
        timings = [call.result() for call in [pool.submit(adapter.generate, request) for request in requests]]
    finally:
        # calls that an interruption or a refusal leaves under way end when the adapter is closed
        pool.shutdown(wait=False, cancel_futures=True)
    elapsed_s = time.perf_counter() - begun
    waited_s = max(timing.waited_s for timing in timings)
    if waited_s:
        raise CallRefusedError("the server", f"took a call only after {waited_s:.3g} s of waiting", again=True)
    first = requests[0]
    rate = sum(request.batch for request in requests) / elapsed_s
    return Throughput(concurrency, first.batch, first.width, first.height, first.steps, rate)


def slots_of(throughput: Sequence[Throughput]) -> int | None:
    """How many requests a server works on at once with gain; None where nobody tried.

    Args:
        throughput: with several numbers of requests at once.

    Example:
        >>> rates = {1: 1.0, 2: 1.6, 4: 1.7}
        >>> slots_of([Throughput(n, 1, 512, 512, 20, rate) for n, rate in rates.items()])
        2
    """
    tried = sorted(throughput, key=lambda t: t.concurrency)
    if len({t.concurrency for t in tried}) < 2:
        return None
    best = tried[0]
    for t in tried:
        if t.images_per_s > GAIN * best.images_per_s:
            best = t
    return best.concurrency
