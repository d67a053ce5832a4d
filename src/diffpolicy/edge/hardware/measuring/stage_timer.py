"""`StageTimer`: what text encoding, each denoising step and the VAE take within a pipeline's call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from diffpolicy._total import total


class StageTimer:
    """A context in which one call of a pipeline is timed.

    Hooks around the denoiser and wrappers around `encode_prompt` and `vae.decode` leave marks: CUDA events on a GPU,
    where a clock would only see kernels being launched, and the clock elsewhere. The GPU is waited for once, at the
    end.
    The step callback of diffusers is not used, since its first interval holds the text encoding.

    Args:
        pipeline: of diffusers. denoiser: the network that runs at each step.
        steps: denoising steps that the call asks for.

    Example:
        >>> with StageTimer(pipeline, pipeline.transformer, device, steps=4) as timer:
        ...     pipeline("a cat", num_inference_steps=4)
        >>> timer.total_s, timer.step_s
    """

    def __init__(self, pipeline: Any, denoiser: nn.Module, device: torch.device, *, steps: int) -> None:
        self.pipeline, self.denoiser, self.device, self.steps = pipeline, denoiser, device, steps
        self.total_s = 0.0
        self.text_tokens: int | None = None
        self._marks: dict[str, list[tuple[Any, Any]]] = {"text": [], "network": [], "decode": []}
        self._open: Any = None
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> StageTimer:
        before = self.denoiser.register_forward_pre_hook(self._before_network, with_kwargs=True)
        after = self.denoiser.register_forward_hook(self._after_network)
        self._undo = [before.remove, after.remove]
        self._wrap(self.pipeline, "encode_prompt", "text")
        self._wrap(getattr(self.pipeline, "vae", None), "decode", "decode")
        self._wait()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._wait()
            self.total_s = time.perf_counter() - self._start
        finally:
            for undo in self._undo:
                undo()

    @property
    def step_s(self) -> tuple[float, ...]:
        """Seconds that the denoiser ran in each step; see `per_step`."""
        return per_step([self._seconds(*pair) for pair in self._marks["network"]], self.steps)

    @property
    def network_calls(self) -> int:
        """Runs of the denoiser."""
        return len(self._marks["network"])

    @property
    def text_s(self) -> float | None:
        """Seconds of text encoding; None if the pipeline has no `encode_prompt`."""
        return self._sum("text")

    @property
    def decode_s(self) -> float | None:
        """Seconds of the VAE; None if the pipeline has none."""
        return self._sum("decode")

    def _sum(self, stage: str) -> float | None:
        pairs = self._marks[stage]
        return total(self._seconds(*pair) for pair in pairs) if pairs else None

    def _before_network(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        text = kwargs.get("encoder_hidden_states")
        if isinstance(text, torch.Tensor) and text.ndim == 3:
            self.text_tokens = text.shape[1]
        self._open = self._mark()

    def _after_network(self, module: nn.Module, args: Any, output: Any) -> None:
        self._marks["network"].append((self._open, self._mark()))

    def _wrap(self, owner: Any, method: str, stage: str) -> None:
        """Marks each call of a method of one object, until the context ends."""
        original = getattr(owner, method, None)
        if original is None:
            return

        def marked(*args: Any, **kwargs: Any) -> Any:
            begun = self._mark()
            result = original(*args, **kwargs)
            self._marks[stage].append((begun, self._mark()))
            return result

        had = vars(owner).get(method)
        object.__setattr__(owner, method, marked)

        def undo() -> None:
            if had is None:
                object.__delattr__(owner, method)
            else:
                object.__setattr__(owner, method, had)

        self._undo.append(undo)

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _seconds(self, begun: Any, ended: Any) -> float:
        if self.device.type != "cuda":
            return float(ended - begun)
        return float(begun.elapsed_time(ended)) / 1e3

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def per_step(calls_s: Sequence[float], steps: int) -> tuple[float, ...]:
    """What each of `steps` denoising steps takes, from the runs of the denoiser in their order.

    The runs are divided among the steps as evenly as can be, the first steps having one more. So two runs make a step
    of a second-order scheduler (Heun, DPM2: 2n - 1 runs in n steps) and of guidance in two calls (2n), and the run that
    PNDM adds (n + 1) belongs to a step. Where there are fewer runs than steps, as with the strength of image-to-image,
    steps share alike. The sum stays.

    Args:
        calls_s: seconds of each run. steps: that were asked for, at least one.

    Returns:
        Seconds `[steps]`; none if the denoiser never ran.

    Example:
        >>> per_step([1.0, 1.0, 2.0, 2.0, 5.0], steps=3)
        (2.0, 4.0, 5.0)
    """
    runs = len(calls_s)
    if runs < steps:
        return (total(calls_s) / steps,) * steps if runs else ()
    each, more = divmod(runs, steps)
    ends = [step * each + min(step, more) for step in range(steps + 1)]
    return tuple(total(calls_s[begin:end]) for begin, end in zip(ends[:-1], ends[1:], strict=True))
