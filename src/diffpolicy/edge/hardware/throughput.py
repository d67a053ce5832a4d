"""Images a second: by batches within one process, by requests side by side behind a URL."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from diffpolicy.edge.hardware.adapter import GenerateRequest, ServerAdapter
from diffpolicy.edge.hardware.records import Point, Throughput

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


def concurrent_throughput(adapter: ServerAdapter, request: GenerateRequest, concurrency: int) -> Throughput:
    """So many threads send like requests without a pause; images over the time of all."""
    calls = CALLS_EACH * concurrency
    begun = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        for call in [pool.submit(adapter.generate, request) for _ in range(calls)]:
            call.result()
    rate = calls * request.batch / (time.perf_counter() - begun)
    return Throughput(concurrency, request.batch, request.width, request.height, request.steps, rate)
