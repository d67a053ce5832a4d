"""The parts of a server's profile. Times are in seconds, sizes in pixels, memory in bytes, energy in joules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from diffpolicy import _validate as check
from diffpolicy._total import total
from diffpolicy.edge.hardware.schema._record import (
    Record,
    amount,
    counts,
    flag,
    item,
    one_of,
    optional,
    positive,
    seconds,
    several,
    text,
    whole,
)


@dataclass(frozen=True)
class Spread(Record):
    """Samples of a time and what they come to; percentiles are linear between the samples.

    Example:
        >>> Spread.of([1.0, 3.0, 2.0]).p50
        2.0
    """

    mean: float = item(seconds)
    std: float = item(seconds)
    p50: float = item(seconds)
    p90: float = item(seconds)
    p95: float = item(seconds)
    p99: float = item(seconds)
    values: tuple[float, ...] = item(several(seconds))

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """The spread of at least one sample. Args: samples: seconds."""
        ordered = sorted(samples)
        mean = total(ordered) / len(ordered)
        std = math.sqrt(total((x - mean) ** 2 for x in ordered) / len(ordered))
        p50, p90, p95, p99 = (percentile(ordered, q) for q in (50, 90, 95, 99))
        return cls(mean, std, p50, p90, p95, p99, tuple(samples))


def percentile(ordered: Sequence[float], q: float) -> float:
    """The q-th percentile of increasing numbers, linear between neighbours."""
    at = (len(ordered) - 1) * q / 100
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


@dataclass(frozen=True)
class Point(Record):
    """What was measured for one size, number of steps and batch.

    Args:
        n: timed calls. warmup: calls before them, not timed.
        latency_s: a whole call. step_s: one denoising step, over all steps of all calls.
        text_s, decode_s: medians of text encoding and of the VAE.
        peak_bytes: greatest memory held by tensors of the device. energy_j: of one image.
        network_calls_per_step: runs of the denoiser; about 2 with a scheduler of second order.
    """

    width: int = item(whole)
    height: int = item(whole)
    steps: int = item(whole)
    batch: int = item(whole)
    n: int = item(whole)
    warmup: int = item(amount)
    latency_s: Spread = item(Spread.from_dict)
    step_s: Spread | None = optional(Spread.from_dict)
    text_s: float | None = optional(seconds)
    decode_s: float | None = optional(seconds)
    peak_bytes: int | None = optional(amount)
    energy_j: float | None = optional(seconds)
    network_calls_per_step: float | None = optional(positive)

    @property
    def size(self) -> tuple[int, int, int]:
        """Width, height and batch: what a step's time depends on."""
        return self.width, self.height, self.batch


@dataclass(frozen=True)
class Skipped(Record):
    """A point of the grid that could not be measured, and why."""

    width: int = item(whole)
    height: int = item(whole)
    steps: int = item(whole)
    batch: int = item(whole)
    reason: str = item(text)


@dataclass(frozen=True)
class SizeFit(Record):
    """Fitted times of one size and batch: of a step and of decoding, for the whole batch."""

    width: int = item(whole)
    height: int = item(whole)
    batch: int = item(whole)
    step_s: float = item(positive)
    decode_s: float = item(seconds)


@dataclass(frozen=True)
class Fit(Record):
    """The law `T = text_s + steps * step_s(size, batch) + decode_s(size, batch)`.

    Args:
        r2: share of the variance of the points' medians that the law explains; None where it was not fitted.
        resid_p95_s: 95th percentile of |median - law|.
        scatter_sigma: standard deviation of log(sample / median), from run to run.
        ok: whether the law may be relied on: r2 >= 0.9.
    """

    text_s: float = item(seconds)
    sizes: tuple[SizeFit, ...] = item(several(SizeFit.from_dict))
    r2: float | None = optional(check.number)
    resid_p95_s: float | None = optional(seconds)
    scatter_sigma: float | None = optional(seconds)
    ok: bool = item(flag, default=True)


@dataclass(frozen=True)
class ColdStart(Record):
    """What comes before the first call: imports, building or loading the model, the first image, a change of model."""

    import_s: float | None = optional(seconds)
    build_s: float | None = optional(seconds)
    load_s: float | None = optional(seconds)
    first_image_s: float | None = optional(seconds)
    switch_s: float | None = optional(seconds)


@dataclass(frozen=True)
class ServerInfo(Record):
    """The machine; never its host name."""

    name: str = item(text)
    device: str = item(text)
    count: int = item(whole, default=1)
    memory_bytes: int | None = optional(amount)
    gpu: str | None = optional(text)
    cpu: str | None = optional(text)
    cores: int | None = optional(whole)
    driver: str | None = optional(text)


@dataclass(frozen=True)
class Software(Record):
    """Versions and settings."""

    python: str | None = optional(text)
    torch: str | None = optional(text)
    diffusers: str | None = optional(text)
    transformers: str | None = optional(text)
    cuda: str | None = optional(text)
    dtype: str | None = optional(text)
    threads: int | None = optional(whole)
    compiled: bool = item(flag, default=False)
    offload_encoders: bool = item(flag, default=False)


@dataclass(frozen=True)
class ModelInfo(Record):
    """The model that was run.

    Args:
        weights: `random` (the full architecture with random numbers), `checkpoint`, `published` (measured by others)
            or `unknown` (a server behind a URL).
        parameters: by component. text_tokens: length of the prompt's sequence that the denoiser sees.
    """

    name: str = item(text)
    weights: str = item(one_of("random", "checkpoint", "published", "unknown"))
    dtype: str | None = optional(text)
    parameters: dict[str, int] | None = optional(counts)
    text_encoders: tuple[str, ...] | None = optional(several(text))
    text_tokens: int | None = optional(whole)
    config_sha256: str | None = optional(text)


@dataclass(frozen=True)
class Memory(Record):
    """Memory that the model needs.

    Args:
        source: `measured`, or `computed from parameters`.
        weights_bytes: all of the model that was run. encoders_bytes: its text encoders.
        without_t5_bytes, with_t5_bytes: of SD3's two variants.
        peak_bytes: greatest of all points, measured. device_used_bytes: by all processes, with the driver's own.
    """

    source: str = item(one_of("measured", "computed from parameters"))
    weights_bytes: int | None = optional(amount)
    encoders_bytes: int | None = optional(amount)
    without_t5_bytes: int | None = optional(amount)
    with_t5_bytes: int | None = optional(amount)
    peak_bytes: int | None = optional(amount)
    device_used_bytes: int | None = optional(amount)


@dataclass(frozen=True)
class Power(Record):
    """Mean electrical power of the device while it generated and while it waited, watts."""

    busy_w: float | None = optional(seconds)
    idle_w: float | None = optional(seconds)
    limit_w: float | None = optional(seconds)


@dataclass(frozen=True)
class Throughput(Record):
    """Images a second with so many requests under way at once, each of one batch."""

    concurrency: int = item(whole)
    batch: int = item(whole)
    width: int = item(whole)
    height: int = item(whole)
    steps: int = item(whole)
    images_per_s: float = item(positive)


@dataclass(frozen=True)
class Source(Record):
    """Where the figures come from: the command, or a publication with its licence notice."""

    command: str | None = optional(text)
    date_utc: str | None = optional(text)
    notice: str | None = optional(text)
    url: str | None = optional(text)
    note: str | None = optional(text)
