"""The calls of a profile: warm-up, rounds over the grid, requests side by side, and which of them were refused."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from diffpolicy._total import total
from diffpolicy.edge.hardware.measuring.grid import Grid
from diffpolicy.edge.hardware.measuring.telemetry import Telemetry, Window
from diffpolicy.edge.hardware.measuring.throughput import CALLS_EACH, concurrent_throughput, levels
from diffpolicy.edge.hardware.prompts import variation
from diffpolicy.edge.hardware.schema.records import ColdStart, Point, Skipped, Spread, Throughput
from diffpolicy.edge.hardware.server_adapter import (
    CallRefusedError,
    GenerateRequest,
    GenerateTiming,
    OutOfMemoryError,
    ServerAdapter,
)
from diffpolicy.errors import InputError

MOST_REFUSED = 5
"""Calls refused in a row, each of which might have succeeded, after which the server is taken to be gone."""
OUT_OF_MEMORY = "out of memory"

Key = tuple[int, int, int, int]
Say = Callable[[str], None]


@dataclass
class Measurement:
    """What has been measured so far.

    Args:
        calls: that were sent. out: points that are not asked for again.
        refused, reasons: calls that failed, and why the last of them did, by point. in_a_row: the latest ones.
        first_reason: of the first call that failed. levels_out: numbers of requests at once that were refused.
    """

    adapter: ServerAdapter
    telemetry: Telemetry
    prompt: str
    seed: int
    calls: int = 0
    samples: dict[Key, list[GenerateTiming]] = field(default_factory=dict)
    windows: dict[Key, list[Window]] = field(default_factory=dict)
    out: set[Key] = field(default_factory=set)
    refused: Counter[Key] = field(default_factory=Counter)
    reasons: dict[Key, str] = field(default_factory=dict)
    first_reason: str | None = None
    in_a_row: int = 0
    levels_out: list[Skipped] = field(default_factory=list)
    throughput: list[Throughput] = field(default_factory=list)
    cold: ColdStart = field(default_factory=ColdStart)
    idle_w: float | None = None

    def request(self, key: Key) -> GenerateRequest:
        """The next request of a point; no two of a profile have the same prompt or seed."""
        width, height, steps, batch = key
        prompt, seed = variation(self.prompt, self.seed, self.calls)
        self.calls += 1
        return GenerateRequest(prompt, width, height, steps, batch, seed)

    def call(self, key: Key, say: Say) -> bool:
        """One timed call. Returns whether it succeeded."""
        self.telemetry.begin()
        timing = self.attempt(key, say)
        if timing is None:
            return False
        self.windows.setdefault(key, []).append(self.telemetry.end())
        self.samples.setdefault(key, []).append(timing)
        return True

    def attempt(self, key: Key, say: Say) -> GenerateTiming | None:
        """One call; None if it was refused, which is noted.

        Raises:
            InputError: so many were refused in a row that the server is taken to be gone.
        """
        what = "{}x{}, {} steps, batch {}".format(*key)
        try:
            timing = self.adapter.generate(self.request(key))
        except OutOfMemoryError as error:
            self.out.add(key)
            self.reasons[key] = f"{OUT_OF_MEMORY}: {error}"
            # a point that sometimes fits and sometimes not cannot be relied on
            self.samples.pop(key, None)
            self.first_reason = self.first_reason or self.reasons[key]
            say(f"skipping {what}: {OUT_OF_MEMORY}")
            return None
        except CallRefusedError as error:
            self.refused[key] += 1
            self.reasons[key] = error.reason
            self.first_reason = self.first_reason or str(error)
            say(f"warning: a call of {what} failed: {error}")
            if not error.again:
                self.out.add(key)
                return None
            self.in_a_row += 1
            if self.in_a_row == MOST_REFUSED:
                raise InputError(f"{MOST_REFUSED} calls in a row failed, at last: {error}") from None
            return None
        self.in_a_row = 0
        return timing

    def skipped(self, keys: list[Key], unreached: str | None) -> tuple[Skipped, ...]:
        """Points without a sample, points some of whose calls were refused, and numbers of requests at once.

        Args:
            unreached: why points were never asked for; None: they are left out.
        """
        found = []
        for key in keys:
            kept = len(self.samples.get(key, ()))
            if kept and self.refused[key]:
                failed = self.refused[key]
                found.append(Skipped(*key, reason=f"{failed} of {failed + kept} calls: {self.reasons[key]}"))
            elif not kept and (reason := self.reasons.get(key, unreached)) is not None:
                found.append(Skipped(*key, reason=reason))
        return (*found, *self.levels_out)

    def point(self, key: Key, warmup: int) -> Point:
        """A point of the profile."""
        calls = self.samples[key]
        steps = [s for call in calls for s in call.step_s or ()]
        energies = [w.energy_j for w in self.windows[key] if w.energy_j is not None]
        width, height, count, batch = key
        runs = [call.network_calls for call in calls if call.network_calls]
        return Point(
            width,
            height,
            count,
            batch,
            n=len(calls),
            warmup=warmup,
            latency_s=Spread.of([call.total_s for call in calls]),
            step_s=Spread.of(steps) if steps else None,
            text_s=_median([call.text_s for call in calls]),
            decode_s=_median([call.decode_s for call in calls]),
            peak_bytes=max((call.peak_bytes for call in calls if call.peak_bytes is not None), default=None),
            energy_j=total(energies) / len(energies) / batch if energies else None,
            network_calls_per_step=statistics.fmean(runs) / count if runs else None,
        )


def measure(run: Measurement, grid: Grid, concurrency: int, say: Say, on_point: Callable[[Point], None] | None) -> None:
    """Starts the server, warms it up and calls it, round after round.

    Raises:
        InputError: the server cannot be started, or takes no more calls; what was measured before is in `run`.
    """
    keys = grid.points()
    say("starting the server")
    run.cold = run.adapter.start()
    run.idle_w = run.telemetry.idle_w()
    _warm_up(run, grid, keys, say)
    for repeat in range(grid.repeats):
        say(f"round {repeat + 1} of {grid.repeats}: {len(keys) - len(run.out)} points")
        for key in keys:
            if key in run.out:
                continue
            run.call(key, say)
            if on_point is not None and repeat == grid.repeats - 1 and key in run.samples:
                on_point(run.point(key, grid.warmup))
    if run.adapter.concurrent and run.samples:
        _side_by_side(run, next(key for key in keys if key in run.samples), concurrency, say)


def _warm_up(run: Measurement, grid: Grid, keys: list[Key], say: Say) -> None:
    """The first image, then each size and batch with the fewest steps, since kernels are chosen by shape."""
    ready: set[tuple[int, int, int]] = set()
    for key in keys:
        width, height, _, batch = key
        shape = width, height, batch
        # more steps take no more memory, so what does not fit with the fewest fits with none
        if shape in ready:
            continue
        for call in range(max(grid.warmup, run.cold.first_image_s is None)):
            if call == 0:
                say(f"warming up {width}x{height}, batch {batch}")
            begun = time.perf_counter()
            timing = run.attempt(key, say)
            if timing is not None and run.cold.first_image_s is None:
                run.cold = replace(run.cold, first_image_s=time.perf_counter() - begun - timing.waited_s)
            if key in run.out:
                break
        else:
            ready.add(shape)
        if run.reasons.get(key, "").startswith(OUT_OF_MEMORY):
            for more in grid.steps:
                run.out.add((width, height, more, batch))
                run.reasons[width, height, more, batch] = run.reasons[key]
            ready.add(shape)


def _side_by_side(run: Measurement, key: Key, concurrency: int, say: Say) -> None:
    """Throughput with 1, 2, 4, ... requests at once, as far as the server takes them."""
    for level in levels(concurrency):
        say(f"{level} requests at once")
        requests = [run.request(key) for _ in range(CALLS_EACH * level)]
        try:
            run.throughput.append(concurrent_throughput(run.adapter, requests, level))
        except CallRefusedError as error:
            run.levels_out.append(Skipped(*key, reason=f"{level} requests at once: {error.reason}"))
            say(f"warning: {level} requests at once are left out: {error}")
            return


def _median(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None
