"""`ServerAdapter`: what the profiler asks of a server, whatever stands behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from diffpolicy.edge.hardware.schema.records import ColdStart, Memory, ModelInfo, ServerInfo, Software
from diffpolicy.errors import InputError


@dataclass(frozen=True)
class GenerateRequest:
    """One call: `batch` images of one prompt.

    Args:
        width, height: pixels. steps: denoising steps. seed: of the initial noise.
    """

    prompt: str
    width: int
    height: int
    steps: int
    batch: int = 1
    seed: int = 0


@dataclass(frozen=True)
class GenerateTiming:
    """What a call took; None where the server does not tell.

    Args:
        total_s: from the call to the images. text_s: text encoding. step_s: each denoising step.
        decode_s: the VAE. peak_bytes: greatest memory held by tensors of the device.
        network_calls: runs of the denoiser; a scheduler of second order takes two for a step.
        waited_s: what the server asked to wait before it took the call, which is no part of `total_s`.
    """

    total_s: float
    text_s: float | None = None
    step_s: tuple[float, ...] | None = None
    decode_s: float | None = None
    peak_bytes: int | None = None
    network_calls: int | None = None
    waited_s: float = 0.0


@dataclass(frozen=True)
class Description:
    """What a profile says of the server, once it has started."""

    server: ServerInfo
    software: Software
    model: ModelInfo
    memory: Memory | None = None


class OutOfMemoryError(RuntimeError):
    """A call needed more memory than there is; the server goes on."""


class CallRefusedError(InputError):
    """One call was refused, dropped or answered wrongly; other calls may succeed.

    Args:
        where: the server, as messages name it. reason: what happened; it stands in the profile, so it names no address.
        again: whether the same call may succeed later.
    """

    def __init__(self, where: str, reason: str, *, again: bool) -> None:
        super().__init__(f"{where} {reason}")
        self.reason, self.again = reason, again


@runtime_checkable
class ServerAdapter(Protocol):
    """One server. A call blocks until its images are there.

    Attributes:
        concurrent: whether calls from several threads run side by side.
        device: torch's name of the device whose power is read, None if it is elsewhere.
    """

    concurrent: bool
    device: str | None

    def start(self) -> ColdStart:
        """Makes the server ready for calls. Returns what that took.

        Raises:
            InputError: it cannot be made ready; nothing was loaded.
        """

    def describe(self) -> Description:
        """What the profile says of the server."""

    def generate(self, request: GenerateRequest) -> GenerateTiming:
        """One call.

        Raises:
            OutOfMemoryError: the device's memory does not suffice for this call.
            CallRefusedError: this call failed, and others may not.
            InputError: no call can succeed.
        """

    def step_flops(self, width: int, height: int, batch: int) -> float | None:
        """Floating-point operations of one run of the denoiser; None where they are not known."""

    def close(self) -> None:
        """Frees what `start` took."""
