"""Profiles from figures that others published: whole calls, without their parts."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from diffpolicy import _validate as check
from diffpolicy._tables import read_table
from diffpolicy.edge.hardware.schema.records import (
    ColdStart,
    Fit,
    ModelInfo,
    Point,
    ServerInfo,
    SizeFit,
    Software,
    Source,
    Spread,
    Throughput,
)
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.workload.table_values import to_number
from diffpolicy.errors import InputError

PREFERRED = "c97bae16"
"""The commit whose figures are taken where there are several."""
COLUMNS = ("commit", "gpu", "model", "batch_size", "denoising_steps", "batch_latency_s", "energy_per_image_j")
GPUS = {
    "NVIDIA A100-SXM4-40GB": ("a100", 40_000_000_000),
    "NVIDIA H100 80GB HBM3": ("h100", 80_000_000_000),
}
MODELS = {
    "kandinsky-community/kandinsky-2-2-decoder": ("kandinsky-2.2", 512),
    "kandinsky-community/kandinsky-3": ("kandinsky-3", 1024),
    "prompthero/openjourney-v4": ("openjourney-v4", 512),
    "segmind/SSD-1B": ("ssd-1b", 1024),
    "stabilityai/sdxl-turbo": ("sdxl-turbo", 512),
    "stabilityai/stable-diffusion-2-1": ("sd2.1", 768),
    "stabilityai/stable-diffusion-3-medium-diffusers": ("sd3-medium", 1024),
    "stabilityai/stable-diffusion-xl-base-1.0": ("sdxl", 1024),
}
"""Short name and the side of the default image, which the benchmark used and its table does not tell."""
NOTE = (
    "published batch latency of 25 steps, text encoding and decoding included; all of it counted as denoising; the "
    "size is the model's default"
)


def from_mlenergy(path: str | Path) -> list[ServerProfile]:
    """Profiles of the ML.ENERGY leaderboard's text-to-image table, one for each GPU and model.

    Args:
        path: a CSV with `COLUMNS`; seconds of a batch and joules of an image.

    Raises:
        InputError: a column is missing, a GPU or model is not known, or a value is out of range.

    Example:
        >>> [profile.name for profile in from_mlenergy("t2i_profiles.csv")]
    """
    table = read_table(path, "ML.ENERGY table", COLUMNS).complete("rows")
    groups: dict[tuple[str, str], dict[tuple[int, int], tuple[str, Point]]] = defaultdict(dict)
    for line, values in zip(table.lines, table.rows, strict=True):
        key = f"{table.name}, line {line}"
        row = dict(zip(table.header, values, strict=True))
        if row["gpu"] not in GPUS or row["model"] not in MODELS:
            unknown = f"{check.show(row['gpu'])}, {check.show(row['model'])}"
            raise InputError(f"{key} names an unknown GPU or model: {unknown}")
        side = MODELS[row["model"]][1]
        batch, steps = (check.integer(_number(row, name, key), f"{key}, {name}", least=1) for name in COLUMNS[3:5])
        seconds = check.number(_number(row, "batch_latency_s", key), f"{key}, batch_latency_s", above=0)
        energy = check.number(_number(row, "energy_per_image_j", key), f"{key}, energy_per_image_j", least=0)
        point = Point(side, side, steps, batch, 1, 0, Spread.of([seconds]), energy_j=energy)
        known = groups[row["gpu"], row["model"]]
        if (batch, steps) in known and known[batch, steps][0] == row["commit"]:
            raise InputError(f"{key} gives batch {batch} and {steps} steps of a GPU and model for the second time")
        if (batch, steps) not in known or row["commit"] == PREFERRED:
            known[batch, steps] = row["commit"], point
    return [_mlenergy(gpu, model, [known[key] for key in sorted(known)]) for (gpu, model), known in groups.items()]


def _mlenergy(gpu: str, model: str, rows: list[tuple[str, Point]]) -> ServerProfile:
    short, memory = GPUS[gpu]
    return _published(
        ServerInfo(f"mlenergy-{short}-{MODELS[model][0]}", "cuda", memory_bytes=memory, gpu=gpu),
        ModelInfo(MODELS[model][0], "published", "float16"),
        [point for _, point in rows],
        Source(
            url="https://github.com/ml-energy/benchmark",
            notice="ML.ENERGY leaderboard, Apache-2.0; converted by diffpolicy",
            note=f"{NOTE}; {model}",
        ),
    )


def from_mlperf() -> list[ServerProfile]:
    """Two profiles of SDXL from MLPerf Inference v4.1 (closed, 1024x1024, 20 steps): L40S and Jetson AGX Orin 64G.

    The figures stand in the logs of mlcommons/inference_results_v4.1: Cisco's two L40S complete 1.37 samples/s Offline,
    NVIDIA's Orin has a SingleStream p90 of 9.964 s and completes 0.1017 samples/s Offline.
    """
    l40s, orin = 2 / 1.37, 9.964
    return [
        _mlperf(
            "l40s",
            "NVIDIA L40S",
            l40s,
            1.37 / 2,
            "two GPUs complete 1.37 images/s Offline; the time of an image is "
            "that of one GPU at this throughput, so a single call takes longer",
        ),
        _mlperf(
            "orin",
            "NVIDIA Jetson AGX Orin 64G",
            orin,
            0.1017,
            "SingleStream p90 9.964 s, TensorRT INT8; a median is a little less",
        ),
    ]


def _mlperf(short: str, gpu: str, seconds: float, images_per_s: float, note: str) -> ServerProfile:
    return _published(
        ServerInfo(f"mlperf-{short}-sdxl", "cuda", gpu=gpu),
        ModelInfo("stable-diffusion-xl-base-1.0", "published"),
        [Point(1024, 1024, 20, 1, 1, 0, Spread.of([seconds]))],
        Source(
            url="https://github.com/mlcommons/inference_results_v4.1",
            notice="figures of MLPerf Inference v4.1 as published by MLCommons; this use is not verified by MLCommons",
            note=f"{note}; all of it counted as denoising; 20 steps are the benchmark's, and are not in the log",
        ),
        (Throughput(1, 1, 1024, 1024, 20, images_per_s),),
    )


def _published(
    server: ServerInfo,
    model: ModelInfo,
    points: list[Point],
    source: Source,
    throughput: tuple[Throughput, ...] = (),
) -> ServerProfile:
    sizes = tuple(SizeFit(p.width, p.height, p.batch, p.latency_s.p50 / p.steps, 0.0) for p in points)
    # one number of steps cannot show whether the law holds, so it is taken on trust
    return ServerProfile(
        server,
        Software(dtype=model.dtype),
        model,
        ColdStart(),
        tuple(points),
        Fit(0.0, sizes),
        source,
        throughput=throughput,
    )


def _number(row: dict[str, str], name: str, key: str) -> float:
    try:
        return to_number(row[name])
    except ValueError as error:
        raise InputError(f"{key}, {name} {error}, got {check.show(row[name])}") from None
