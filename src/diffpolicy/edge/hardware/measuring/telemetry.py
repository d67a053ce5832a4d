"""Energy and power of an NVIDIA GPU through NVML; reads only, never writes a setting."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from diffpolicy.edge.hardware.optional import need
from diffpolicy.errors import InputError

SHORTEST_S = 1.0
"""NVML refreshes its counters every 20 to 100 ms, so that a shorter window says nothing."""


@dataclass(frozen=True)
class Window:
    """What was read between two moments; None where it could not be."""

    seconds: float
    energy_j: float | None

    @property
    def power_w(self) -> float | None:
        """Mean power, watts."""
        return None if self.energy_j is None else self.energy_j / self.seconds


class Telemetry:
    """Reads one device, or nothing where NVML is not there.

    Args:
        device: torch's name of it, such as `cuda:0`; None and `cpu` have no counters here.
    """

    def __init__(self, device: str | None) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        self._begun = (time.perf_counter(), None)
        if device is None or not device.startswith("cuda"):
            return
        try:
            self._nvml = need("pynvml")
            self._nvml.nvmlInit()
            self._handle = self._find(device)
        except InputError:
            self._nvml = None
        except self._nvml.NVMLError:
            self._nvml = self._handle = None

    def begin(self) -> None:
        """Begins a window; there is one at a time."""
        self._begun = (time.perf_counter(), self._energy_j())

    def end(self) -> Window:
        """Ends the window; energy is None if it was too short or cannot be read."""
        start, before = self._begun
        seconds, after = time.perf_counter() - start, self._energy_j()
        known = before is not None and after is not None and seconds >= SHORTEST_S
        return Window(seconds, after - before if known else None)

    def idle_w(self) -> float | None:
        """Power at this moment, watts."""
        milliwatts = self._read("nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else milliwatts / 1e3

    def limit_w(self) -> float | None:
        """The power limit that is set, watts."""
        milliwatts = self._read("nvmlDeviceGetEnforcedPowerLimit")
        return None if milliwatts is None else milliwatts / 1e3

    def used_bytes(self) -> int | None:
        """Memory in use by all processes, with the CUDA context, which torch does not count."""
        memory = self._read("nvmlDeviceGetMemoryInfo")
        return None if memory is None else int(memory.used)

    def driver(self) -> str | None:
        """The driver's version."""
        if self._handle is None:
            return None
        version = self._nvml.nvmlSystemGetDriverVersion()
        return version.decode() if isinstance(version, bytes) else str(version)

    def _energy_j(self) -> Any:
        millijoules = self._read("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def _read(self, function: str) -> Any:
        if self._handle is None:
            return None
        try:
            return getattr(self._nvml, function)(self._handle)
        except self._nvml.NVMLError:  # what a card or a MIG slice cannot tell
            return None

    def _find(self, device: str) -> Any:
        """The handle, by UUID where torch tells it, since CUDA_VISIBLE_DEVICES renumbers torch's devices only."""
        import torch

        properties = torch.cuda.get_device_properties(device)
        uuid = getattr(properties, "uuid", None)
        if uuid is not None:
            return self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
        return self._nvml.nvmlDeviceGetHandleByIndex(torch.device(device).index or 0)
