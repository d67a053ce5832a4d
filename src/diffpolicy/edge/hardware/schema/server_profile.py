"""`ServerProfile`: what was measured on one server, as a versioned JSON file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from diffpolicy import _files
from diffpolicy import _validate as check
from diffpolicy._read import what_is
from diffpolicy._suggest import meant
from diffpolicy._total import total
from diffpolicy.edge.hardware.schema._record import Record, flag, item, optional, several, whole
from diffpolicy.edge.hardware.schema.records import (
    ColdStart,
    Fit,
    Memory,
    ModelInfo,
    Point,
    Power,
    ServerInfo,
    SizeFit,
    Skipped,
    Software,
    Source,
    Throughput,
)
from diffpolicy.errors import InputError

SCHEMA = "diffpolicy.server_profile/1"


@dataclass(frozen=True)
class ServerProfile(Record):
    """What was measured on one server with one model.

    Args:
        server: the machine. software: versions and settings. model: what was run.
        cold_start: what comes before the first call, seconds.
        points: what was measured for each size, number of steps and batch.
        fit: the law of a call's time, which `service_s` evaluates.
        source: how and when it was measured, or by whom it was published.
        skipped: points that could not be measured, and why.
        memory: bytes that the model needs, or None. power: watts while it worked and while it waited, or None.
        throughput: images in a second with several calls at once; may be empty.
        slots: how many requests it works on at once with gain; None where that was not measured.
        complete: whether every point of the grid was measured or skipped; false after an interruption.

    Raises:
        InputError: on reading, a key is unknown or missing or a value is out of range.

    Example:
        >>> profile = ServerProfile.load("mlenergy-h100-sd3-medium")
        >>> round(profile.service_s(1024, 1024, steps=25), 2)
        1.9
    """

    server: ServerInfo = item(ServerInfo.from_dict)
    software: Software = item(Software.from_dict)
    model: ModelInfo = item(ModelInfo.from_dict)
    cold_start: ColdStart = item(ColdStart.from_dict)
    points: tuple[Point, ...] = item(several(Point.from_dict))
    fit: Fit = item(Fit.from_dict)
    source: Source = item(Source.from_dict)
    skipped: tuple[Skipped, ...] = item(several(Skipped.from_dict), default=())
    memory: Memory | None = optional(Memory.from_dict)
    power: Power | None = optional(Power.from_dict)
    throughput: tuple[Throughput, ...] = item(several(Throughput.from_dict), default=())
    slots: int | None = optional(whole)
    complete: bool = item(flag, default=True)

    @property
    def name(self) -> str:
        """The server's name."""
        return self.server.name

    @property
    def switch_s(self) -> float | None:
        """Seconds to load this model where another one is loaded; None where it was not measured."""
        return self.cold_start.switch_s

    @property
    def together(self) -> float:
        """Time of a call while `slots` of them run, over that of one alone; 1 where that was not measured."""
        rates = {t.concurrency: t.images_per_s for t in self.throughput}
        if self.slots is None or not {1, self.slots} <= rates.keys():
            return 1.0
        return max(self.slots * rates[1] / rates[self.slots], 1.0)

    @property
    def scatter_sigma(self) -> float | None:
        """Standard deviation of the logarithm of a call's time; None where there are no samples."""
        return self.fit.scatter_sigma

    def service_s(self, width: int, height: int, steps: int, batch: int = 1) -> float:
        """Expected seconds of one call.

        Linear in pixels between sizes that were measured. Beyond them the line through the nearest two goes on, but
        never below what is proportional to pixels for smaller images, nor below the last size for larger ones. A batch
        between two measured ones is linear between them; a larger one takes time in proportion.

        Args:
            width, height: pixels. steps: denoising steps. batch: images of the call.

        Returns:
            Seconds of the whole call.
        """
        curves: dict[int, list[SizeFit]] = defaultdict(list)
        for size in self.fit.sizes:
            curves[size.batch].append(size)
        known = sorted(curves)

        def at(b: int) -> float:
            step_s, decode_s = _at_pixels(curves[b], width * height)
            return steps * step_s + decode_s

        if batch <= known[0]:
            return self.fit.text_s + at(known[0])
        if batch >= known[-1]:
            return self.fit.text_s + at(known[-1]) * batch / known[-1]
        low, high = next(pair for pair in zip(known, known[1:], strict=False) if batch <= pair[1])
        return self.fit.text_s + at(low) + (at(high) - at(low)) * (batch - low) / (high - low)

    @classmethod
    def load(cls, source: str | Path) -> ServerProfile:
        """A shipped profile by its name, or a JSON file.

        Args:
            source: `diffpolicy list profiles` gives the names.

        Raises:
            InputError: neither a shipped name nor a readable, valid file.
        """
        path = Path(source)
        if str(source) in shipped():
            path = _folder() / f"{source}.json"
        elif not what_is(path) and path.suffix != ".json":
            raise InputError(
                f"server profile {check.show(str(source))} is neither shipped ({', '.join(shipped())}) nor a file"
                f"{meant(str(source), shipped())}"
            )
        try:
            return cls.from_dict(check.read_json(path, "server profile"))
        except InputError as error:
            message = str(error)
            raise InputError(message if str(path) in message else f"server profile {path}: {message}") from None

    @classmethod
    def from_dict(cls, data: Any, key: str = "profile") -> ServerProfile:
        """The object of a profile file; unknown keys are refused.

        Args:
            data: as it stands in the file. key: names it in messages.

        Raises:
            InputError: a key is unknown or missing or a value is out of range; the sentence names it.
        """
        if isinstance(data, dict):
            if "schema" not in data:
                raise InputError(f"{key} lacks the key 'schema'")
            if data["schema"] != SCHEMA:
                raise InputError(f"schema must be '{SCHEMA}', got {check.show(data['schema'])}")
            data = {name: value for name, value in data.items() if name != "schema"}
        profile = super().from_dict(data, key)
        if not profile.fit.sizes:
            raise InputError(f"{key}.fit.sizes must hold at least one size, got []")
        return profile

    def to_dict(self) -> dict[str, Any]:
        """The object of a profile file, in the order in which people read it."""
        data = super().to_dict()
        order = ("server", "software", "model", "cold_start", "fit", "throughput", "memory", "power", "points")
        rest = [f.name for f in fields(self) if f.name not in order]
        return {"schema": SCHEMA, **{name: data[name] for name in (*order, *rest)}}

    def save(self, path: str | Path) -> None:
        """Writes the profile, after reading it back, so that no file is written that `load` refuses.

        Args:
            path: of the JSON file.

        Raises:
            InputError: a value is not finite or out of range, or the file cannot be written.
        """
        data = self.to_dict()
        ServerProfile.from_dict(data)
        _files.write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def shipped() -> tuple[str, ...]:
    """Names of the profiles that come with the package."""
    return tuple(sorted(path.stem for path in _folder().glob("*.json")))


def _folder() -> Path:
    return Path(str(resources.files("diffpolicy.edge.hardware"))) / "profiles"


def _at_pixels(sizes: Sequence[SizeFit], pixels: int) -> tuple[float, float]:
    """Seconds of a step and of decoding at so many pixels."""
    at: dict[int, list[SizeFit]] = defaultdict(list)
    for size in sizes:
        at[size.width * size.height].append(size)
    known = sorted(at)
    step_s = [total(s.step_s for s in at[p]) / len(at[p]) for p in known]
    decode_s = [total(s.decode_s for s in at[p]) / len(at[p]) for p in known]
    return _line(known, step_s, pixels), _line(known, decode_s, pixels)


def _line(x: Sequence[int], y: Sequence[float], at: int) -> float:
    if len(x) == 1:
        return y[0] * at / x[0]
    i = next((i for i in range(1, len(x) - 1) if at <= x[i]), len(x) - 1)
    value = y[i - 1] + (y[i] - y[i - 1]) * (at - x[i - 1]) / (x[i] - x[i - 1])
    if at < x[0]:
        return max(value, y[0] * at / x[0])
    return max(value, y[-1]) if at > x[-1] else value
