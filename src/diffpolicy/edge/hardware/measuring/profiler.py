"""`profile`: measures a server over a grid of points and fits the law of its times."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone

from diffpolicy.edge.hardware.measuring.calls import Measurement, Say, measure
from diffpolicy.edge.hardware.measuring.fit import GOOD_R2, fit_points
from diffpolicy.edge.hardware.measuring.grid import Grid
from diffpolicy.edge.hardware.measuring.plausibility import StepFlops, check_speed
from diffpolicy.edge.hardware.measuring.telemetry import Telemetry
from diffpolicy.edge.hardware.measuring.throughput import serial_throughput, slots_of
from diffpolicy.edge.hardware.prompts import PROMPT
from diffpolicy.edge.hardware.schema.records import Memory, Point, Power, Source
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.hardware.server_adapter import ServerAdapter
from diffpolicy.errors import InputError


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
    on_interrupt: Callable[[KeyboardInterrupt], None] | None = None,
) -> ServerProfile:
    """Starts a server, measures it and fits the law of its times.

    The first image counts as cold start, and warm-ups are not timed. Repeats go round the whole grid, so that a machine
    that grows slower does so for all points alike. No two calls have the same prompt or seed, so that a server that
    keeps its answers does not measure as fast; the same `seed` makes the same calls.
    A point that needs too much memory is skipped, and so is what the server refuses; `skipped` says why. Where the
    server is gone, the rest is skipped. An interruption (Ctrl-C) ends the measurement: what was measured becomes a
    profile with `complete` false.

    Args:
        adapter: the server. grid: what is measured of it.
        concurrency: most requests at once, for servers that take several.
        prompt: what each call's prompt begins with. seed: of the prompts and seeds of the calls.
        command: what the profile says it was made by.
        progress: takes sentences on what goes on, warnings among them.
        on_point: takes each point once its last call is done.
        on_interrupt: takes the interruption that ended the measurement, if one did.

    Returns:
        The profile, whose `save` writes it.

    Raises:
        InputError: the server cannot be started or asked, no call succeeded, or a speed is impossible.
        KeyboardInterrupt: interrupted before anything was measured.

    Example:
        >>> server = SimulatedAdapter("tiny-cpu", scatter_sigma=0.0)
        >>> measured = profile(server, Grid(steps=(4, 10, 20), sizes=((64, 64),)))
        >>> measured.fit.ok, len(measured.points)
        (True, 3)
    """
    say = progress or (lambda text: None)
    started = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    complete = True
    unreached: str | None = None
    run = Measurement(adapter, Telemetry(adapter.device), prompt, seed)
    try:
        try:
            measure(run, grid, concurrency, say, on_point)
        except KeyboardInterrupt as stop:
            if not run.samples:
                raise
            complete = False
            if on_interrupt is not None:
                on_interrupt(stop)
        except InputError as error:
            if not run.samples:
                raise
            unreached = "the server took no more calls"
            say(f"warning: the measurement ends early: {error}")
        if not run.samples:
            raise InputError(f"no point of the grid could be measured: {run.first_reason}")
        result = _result(run, grid, complete, unreached, Source(command=command, date_utc=started))
        for warning in check_speed(result.fit, result.server, result.model.dtype, _flops(adapter, result.points)):
            say(f"warning: {warning}")
    finally:
        adapter.close()
    if not result.fit.ok:
        r2 = result.fit.r2
        why = "R² needs three numbers of steps" if r2 is None else f"R² is {r2:.3f}, less than {GOOD_R2}"
        say(f"warning: the law text + steps x step + decode does not describe the times well: {why}")
    return result


def _flops(adapter: ServerAdapter, points: tuple[Point, ...]) -> StepFlops:
    """Operations of a denoising step by size: those of a run of the denoiser, as often as a step runs it."""
    runs = {p.size: p.network_calls_per_step for p in points if p.network_calls_per_step is not None}

    def flops(width: int, height: int, batch: int) -> float | None:
        once = adapter.step_flops(width, height, batch)
        return None if once is None else once * runs.get((width, height, batch), 1.0)

    return flops


def _result(run: Measurement, grid: Grid, complete: bool, unreached: str | None, source: Source) -> ServerProfile:
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
        skipped=run.skipped(grid.points(), unreached),
        memory=memory,
        power=power,
        throughput=tuple(run.throughput) if run.adapter.concurrent else serial_throughput(points),
        slots=slots_of(run.throughput) if run.adapter.concurrent else None,
        complete=complete,
    )
