"""What memory this machine has free, asked before much of it is taken."""

from __future__ import annotations

from pathlib import Path

from diffpolicy.errors import InputError


def free_bytes() -> int | None:
    """Bytes of memory that can be had without driving out others'; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None


def check_free(need: int, name: str) -> None:
    """Refuses what would not fit: a file states its own size, and a small one may state any.

    Args:
        need: bytes. name: of the file, and of the part of it, in the message.

    Raises:
        InputError: less is free.
    """
    free = free_bytes()
    if free is not None and need > free:
        raise InputError(f"{name} would take {need / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free")
