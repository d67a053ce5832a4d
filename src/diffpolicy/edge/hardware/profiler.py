"""`profile`: measures a server over a grid of points and fits the law of its times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from diffpolicy.edge.hardware.adapter import GenerateRequest, GenerateTiming, OutOfMemoryError, ServerAdapter
from diffpolicy.edge.hardware.fit import GOOD_R2, fit_points
from diffpolicy.edge.hardware.grid import Grid
from diffpolicy.edge.hardware.plausibility import check_speed
from diffpolicy.edge.hardware.records import (
    ColdStart,
    Memory,
    Point,
    Power,
    Skipped,
    Source,
    Spread,
    Throughput,
)
from diffpolicy.edge.hardware.server_profile import ServerProfile
from diffpolicy.edge.hardware.telemetry import Telemetry, Window
from diffpolicy.edge.hardware.throughput import concurrent_throughput, levels, serial_throughput
from diffpolicy.errors import InputError

PROMPT = "a lighthouse above a stormy sea, oil on canvas"
"""Text encoders pad every prompt to one length, so its words do not matter."""

Key = tuple[int, int, int, int]
Say = Callable[[str], None]


@dataclass
class _Run:
    """What has been measured so far."""

    adapter: ServerAdapter
    telemetry: Telemetry
    prompt: str
    seed: int
    samples: dict[Key, list[GenerateTiming]] = field(default_factory=dict)
    windows: dict[Key, list[Window]] = field(default_factory=dict)
    skipped: dict[Key, str] = field(default_factory=dict)
    throughput: list[Throughput] = field(default_factory=list)
    cold: ColdStart = field(default_factory=ColdStart)
    idle_w: float | None = None

    def request(self, key: Key) -> GenerateRequest:
        """The request of a point."""
        width, height, steps, batch = key
        return GenerateRequest(self.prompt, width, height, steps, batch, self.seed)

    def call(self, key: Key) -> None:
        """One timed call."""
        self.telemetry.begin()
        timing = self.adapter.generate(self.request(key))
        self.windows.setdefault(key, []).append(self.telemetry.end())
        self.samples.setdefault(key, []).append(timing)

    def point(self, key: Key, warmup: int) -> Point:
        """A point of the profile."""
        calls = self.samples[key]
        steps = [s for call in calls for s in call.step_s or ()]
        energies = [w.energy_j for w in self.windows[key] if w.energy_j is not None]
        width, height, count, batch = key
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
            energy_j=sum(energies) / len(energies) / batch if energies else None,
        )


def profile(
    adapter: ServerAdapter,
    grid: Grid,
    *,
    concurrency: int = 1,
    prompt: str = PROMPT,
    seed: int = 0,
    command: str | None = None,
    progress: Say | None = None,
    on_point: Callable[[Point], None] | None = None,
) -> ServerProfile:
    """Starts a server, measures it and fits the law of its times.

    The first image counts as cold start, and warm-ups are not timed. Repeats go round the whole grid, so that a machine
    that grows slower does so for all points alike. A point that needs too much memory is skipped and says so.
    An interruption (Ctrl-C) ends the measurement: what was measured becomes a profile with `complete` false.

    Args:
        concurrency: most requests at once, for servers that take several.
        prompt, seed: of every call. command: what the profile says it was made by.
        progress: takes sentences on what goes on, warnings among them.
        on_point: takes each point once its last call is done.

    Raises:
        InputError: the server cannot be started or asked, nothing fits into memory, or a speed is impossible.
        KeyboardInterrupt: interrupted before anything was measured.

    Example:
        >>> profile(SimulatedAdapter("tiny-cpu"), Grid(steps=(4, 10, 20), sizes=((64, 64),))).fit.r2
    """
    say = progress or (lambda text: None)
    started = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    complete = True
    run = _Run(adapter, Telemetry(adapter.device), prompt, seed)
    try:
        try:
            _measure(run, grid, concurrency, say, on_point)
        except KeyboardInterrupt:
            if not run.samples:
                raise
            complete = False
        if not run.samples:
            reason = next(iter(run.skipped.values()), "nothing was measured")
            raise InputError(f"no point of the grid could be measured: {reason}")
        result = _result(run, grid, complete, Source(command=command, date_utc=started))
        for warning in check_speed(result.fit, result.server, result.model.dtype, adapter.step_flops):
            say(f"warning: {warning}")
    finally:
        adapter.close()
    if not result.fit.ok:
        r2 = result.fit.r2
        why = "R² needs three numbers of steps" if r2 is None else f"R² is {r2:.3f}, less than {GOOD_R2}"
        say(f"warning: the law text + steps x step + decode does not describe the times well: {why}")
    return result


def _measure(run: _Run, grid: Grid, concurrency: int, say: Say, on_point: Callable[[Point], None] | None) -> None:
    keys = grid.points()
    say("starting the server")
    run.cold = run.adapter.start()
    run.idle_w = run.telemetry.idle_w()
    _warm_up(run, grid, keys, say)
    for repeat in range(grid.repeats):
        say(f"round {repeat + 1} of {grid.repeats}: {len(keys) - len(run.skipped)} points")
        for key in keys:
            if key in run.skipped:
                continue
            try:
                run.call(key)
            except OutOfMemoryError as error:
                _skip(run, [key], error, say)
                continue
            if on_point is not None and repeat == grid.repeats - 1:
                on_point(run.point(key, grid.warmup))
    if run.adapter.concurrent and run.samples:
        request = run.request(next(key for key in keys if key in run.samples))
        for level in levels(concurrency):
            say(f"{level} requests at once")
            run.throughput.append(concurrent_throughput(run.adapter, request, level))


def _warm_up(run: _Run, grid: Grid, keys: list[Key], say: Say) -> None:
    """The first image, then each size and batch with the fewest steps, since kernels are chosen by shape."""
    begun = time.perf_counter()
    for width, height, steps, batch in keys:
        if steps != grid.steps[0]:
            continue
        try:
            for call in range(max(grid.warmup, run.cold.first_image_s is None)):
                if call == 0:
                    say(f"warming up {width}x{height}, batch {batch}")
                run.adapter.generate(run.request((width, height, steps, batch)))
                if run.cold.first_image_s is None:
                    run.cold = replace(run.cold, first_image_s=time.perf_counter() - begun)
        except OutOfMemoryError as error:
            _skip(run, [(width, height, n, batch) for n in grid.steps], error, say)


def _skip(run: _Run, keys: list[Key], error: OutOfMemoryError, say: Say) -> None:
    for key in keys:
        run.skipped[key] = f"out of memory: {error}"
        # a point that sometimes fits and sometimes not cannot be relied on
        run.samples.pop(key, None)
    width, height, _, batch = keys[0]
    say(f"skipping {width}x{height}, batch {batch}: out of memory")


def _result(run: _Run, grid: Grid, complete: bool, source: Source) -> ServerProfile:
    points = tuple(run.point(key, grid.warmup) for key in grid.points() if key in run.samples)
    about = run.adapter.describe()
    peaks = [p.peak_bytes for p in points if p.peak_bytes is not None]
    memory = about.memory
    if peaks:
        memory = replace(memory or Memory("measured"), source="measured", peak_bytes=max(peaks))
        memory = replace(memory, device_used_bytes=run.telemetry.used_bytes())
    powers = [w.power_w for windows in run.windows.values() for w in windows if w.power_w is not None]
    busy_w = statistics.fmean(powers) if powers else None
    limit_w = run.telemetry.limit_w()
    power = Power(busy_w, run.idle_w, limit_w) if (busy_w, run.idle_w, limit_w) != (None, None, None) else None
    return ServerProfile(
        server=about.server,
        software=about.software,
        model=about.model,
        cold_start=run.cold,
        points=points,
        fit=fit_points(points),
        source=source,
        skipped=tuple(Skipped(*key, reason=reason) for key, reason in run.skipped.items()),
        memory=memory,
        power=power,
        throughput=tuple(run.throughput) if run.adapter.concurrent else serial_throughput(points),
        complete=complete,
    )


def _median(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None
