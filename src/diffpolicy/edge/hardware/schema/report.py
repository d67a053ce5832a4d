"""A profile as text for a terminal."""

from __future__ import annotations

from diffpolicy._text_table import render
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile

COLUMNS = (
    "size",
    "batch",
    "steps",
    "calls",
    "p50 s",
    "p95 s",
    "step ms",
    "text ms",
    "decode ms",
    "peak GiB",
    "J/image",
)


def profile_report(profile: ServerProfile) -> str:
    """Points, the fitted law, the cold start, throughput, and what was skipped."""
    rows = [
        [
            f"{p.width}x{p.height}",
            str(p.batch),
            str(p.steps),
            str(p.n),
            f"{p.latency_s.p50:.4g}",
            f"{p.latency_s.p95:.4g}",
            _cell(p.step_s.p50 if p.step_s else None, 1e3),
            _cell(p.text_s, 1e3),
            _cell(p.decode_s, 1e3),
            _cell(p.peak_bytes, 2**-30),
            _cell(p.energy_j, 1),
        ]
        for p in profile.points
    ]
    where = profile.server.gpu or profile.server.cpu or profile.server.device
    title = f"{profile.name}: {profile.model.name}, {profile.model.weights} weights, on {where}"
    return "\n".join([render(title, COLUMNS, rows), *_fit(profile), *_cold(profile), *_rest(profile)])


def _fit(profile: ServerProfile) -> list[str]:
    fit = profile.fit
    lines = ["seconds of a call = text + steps x step + decode"]
    for s in fit.sizes:
        lines.append(
            f"  {s.width}x{s.height}, batch {s.batch}: {fit.text_s:.4g} + steps x {s.step_s:.4g} + {s.decode_s:.4g}"
        )
    quality = "R² not known" if fit.r2 is None else f"R² {fit.r2:.4f}"
    if fit.resid_p95_s is not None:
        quality += f", 95 % of medians within {fit.resid_p95_s:.3g} s"
    if fit.scatter_sigma is not None:
        quality += f", scatter of a call {100 * fit.scatter_sigma:.1f} %"
    return [*lines, f"  {quality}{'' if fit.ok else '; a poor fit'}"]


def _cold(profile: ServerProfile) -> list[str]:
    names = {"import_s": "import", "build_s": "build", "load_s": "load", "first_image_s": "first image"}
    names |= {"switch_s": "change of model"}
    times = profile.cold_start.to_dict()
    known = [f"{text} {times[name]:.3g} s" for name, text in names.items() if times[name] is not None]
    return [f"cold start: {', '.join(known)}"] if known else []


def _rest(profile: ServerProfile) -> list[str]:
    lines = [
        f"throughput, {t.width}x{t.height}, {t.steps} steps: {t.images_per_s:.4g} images/s with "
        f"{t.concurrency} call{'s' if t.concurrency > 1 else ''} at a time, batch {t.batch}"
        for t in profile.throughput
    ]
    if profile.slots is not None:
        lines.append(f"requests at once that still gain: {profile.slots}, each {profile.together:.3g} times as long")
    lines += [f"skipped {s.width}x{s.height}, {s.steps} steps, batch {s.batch}: {s.reason}" for s in profile.skipped]
    if not profile.complete:
        lines.append("incomplete: it was interrupted")
    return lines


def _cell(value: float | None, factor: float) -> str:
    return "" if value is None else f"{value * factor:.4g}"
