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
        prompt: what is to be seen. width, height: of an image, pixels. steps: denoising steps.
        batch: images of the call. seed: of the initial noise.

    Example:
        >>> request = GenerateRequest("a lighthouse, oil on canvas", 1024, 1024, steps=28, batch=2)
        >>> SimulatedAdapter("mlenergy-h100-sd3-medium").generate(request).total_s > 1
        True
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
        total_s: from the call to the images, seconds. text_s: text encoding, seconds. step_s: each denoising step,
            seconds.
        decode_s: the VAE, seconds. peak_bytes: greatest memory held by tensors of the device.
        network_calls: runs of the denoiser; a scheduler of second order takes two for a step.
        waited_s: what the server asked to wait before it took the call, seconds, which are no part of `total_s`.

    Example:
        >>> server = SimulatedAdapter("tiny-cpu", scatter_sigma=0.0)
        >>> timing = server.generate(GenerateRequest("a cat", 64, 64, steps=4))
        >>> len(timing.step_s), timing.total_s > sum(timing.step_s), timing.peak_bytes
        (4, True, None)
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
    """What a profile says of the server, once it has started.

    Args:
        server: the machine, never its host name. software: versions and settings.
        model: what was run. memory: what the model needs; None where it is not known.

    Example:
        >>> SimulatedAdapter("mlenergy-h100-sd3-medium").describe().model.weights
        'published'
    """

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
    """Calls one server to measure it; a call blocks until its images are there.

    Attributes:
        concurrent: whether calls from several threads run side by side.
        device: torch's name of the device whose power is read, None if it is elsewhere.

    Example:
        >>> server = SimulatedAdapter("tiny-cpu")
        >>> isinstance(server, ServerAdapter), server.concurrent
        (True, False)
    """

    concurrent: bool
    device: str | None

    def start(self) -> ColdStart:
        """Makes the server ready for calls.

        Returns:
            What that took.

        Raises:
            InputError: it cannot be made ready; nothing was loaded.
        """

    def describe(self) -> Description:
        """What the profile says of the server."""

    def generate(self, request: GenerateRequest) -> GenerateTiming:
        """One call.

        Args:
            request: what is asked for.

        Returns:
            What it took, once the images are there.

        Raises:
            OutOfMemoryError: the device's memory does not suffice for this call.
            CallRefusedError: this call failed, and others may not.
            InputError: no call can succeed.
        """

    def step_flops(self, width: int, height: int, batch: int) -> float | None:
        """Floating-point operations of one run of the denoiser; None where they are not known.

        Args:
            width, height: pixels. batch: images of the call.
        """

    def close(self) -> None:
        """Frees what `start` took."""
