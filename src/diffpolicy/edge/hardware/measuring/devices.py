"""Devices of this machine: whether they are there, what memory they have free, and what a profile says of them."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from diffpolicy import _memory
from diffpolicy import _validate as check
from diffpolicy._validate import show
from diffpolicy.edge.hardware.measuring.telemetry import Telemetry
from diffpolicy.edge.hardware.schema.records import ServerInfo, Software
from diffpolicy.errors import InputError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def default_device() -> str:
    """The first GPU, or the processor."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def check_device(name: str) -> torch.device:
    """The device, if it is there.

    Raises:
        InputError: torch knows no such device, or this machine has none.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device must be cpu or cuda:INDEX, got {show(name)}") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device must be cpu or cuda:INDEX, got {show(name)}")
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= there:
        seen = "no CUDA device" if there == 0 else f"{there} of them" if device.type == "cuda" else "one processor"
        raise InputError(f"device {name} is not there: torch sees {seen}")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else torch.device("cpu")


def check_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The type of the weights: by default half precision on a GPU and float32 on a processor."""
    if name is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    check.choice(name, "dtype", DTYPES)
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The name without torch's prefix."""
    return str(dtype).removeprefix("torch.")


def free_bytes(device: torch.device) -> int | None:
    """Free memory of the device or of the host, None if it is not known."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else _memory.free_bytes()


def check_memory(need: int, device: torch.device, what: str) -> None:
    """Refuses a model whose weights alone do not fit.

    Args:
        need: bytes. what: how the model is called in the message.

    Raises:
        InputError: less is free.
    """
    free = free_bytes(device)
    if free is not None and need > free:
        raise InputError(
            f"{what} needs {need / 2**30:.1f} GiB for its weights, but {device} has {free / 2**30:.1f} GiB free"
        )


def server_info(device: torch.device, name: str) -> ServerInfo:
    """What a profile says of the machine: no host name, no user."""
    gpu, memory = None, None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu, memory = properties.name, int(properties.total_memory)
    else:
        try:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError, AttributeError):
            memory = None
    return ServerInfo(
        name=name,
        device=device.type,
        memory_bytes=memory,
        gpu=gpu,
        cpu=_cpu_name(),
        cores=os.cpu_count(),
        driver=Telemetry(str(device)).driver(),
    )


def software(dtype: torch.dtype, *, offload_encoders: bool) -> Software:
    """Versions of what ran."""
    return Software(
        python=platform.python_version(),
        torch=torch.__version__,
        diffusers=_version("diffusers"),
        transformers=_version("transformers"),
        cuda=torch.version.cuda,
        dtype=dtype_name(dtype),
        threads=torch.get_num_threads(),
        offload_encoders=offload_encoders,
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or None
