"""`PipelineEngine`: a text-to-image pipeline of diffusers, in a thread of this process."""

from __future__ import annotations

import asyncio
import inspect
import io
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from diffpolicy.edge.hardware.models.architectures import ARCHITECTURES
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.worker.engine import Run, StoppedError
from diffpolicy.edge.serving.worker.job import Job, Standard
from diffpolicy.edge.serving.worker.pace import Pace

STEPS = {"tiny": 4}
"""Denoising steps where a request does not say, by model; elsewhere 28, as SD3's authors have it."""
T = TypeVar("T")


class PipelineEngine:
    """A pipeline with random weights, or one from a folder or a hub.

    One request at a time runs in a thread, and heeds between two steps that it is to end.

    Args:
        model: `tiny`, `sd3-medium`, `sdxl` or `sd15` with random weights, whose images are noise; or a folder or hub id
            of a diffusers pipeline.
        device: `cpu` or `cuda:INDEX`; None: the first GPU, or the processor.
        seed: of random weights. threads: of torch, on a processor.

    Raises:
        InputError: there is no such model or device, or the extra `hardware` is not installed.

    Example:
        >>> engine = PipelineEngine("tiny", device="cpu")
        >>> engine.standard, engine.kinds
        (Standard(width=64, height=64, steps=4), ('png', 'jpeg', 'webp'))
    """

    kinds: tuple[str, ...] = ("png", "jpeg", "webp")
    edits = False
    slots = 1

    def __init__(self, model: str, *, device: str | None = None, seed: int = 0, threads: int = 1) -> None:
        from diffpolicy.edge.hardware.adapters.diffusers_ import DiffusersAdapter

        self._adapter = DiffusersAdapter(model, device=device, seed=seed)
        self._threads = threads
        self.model = self._adapter.model
        known = ARCHITECTURES.get(model)
        width, height = (1024, 1024) if known is None else known.sizes[0 if model == "tiny" else -1]
        self.standard = Standard(width, height, STEPS.get(model, 28))
        self._pace = Pace()
        self._pipeline: Any = None

    async def load(self) -> None:
        """Builds or loads the pipeline.

        Raises:
            InputError: it cannot be.
        """
        await _in_thread(self._load)

    def _load(self) -> None:
        import torch

        if self._adapter.device == "cpu":
            torch.set_num_threads(self._threads)
        self._adapter.start()
        self._pipeline = self._adapter.pipeline

    def expected_s(self, job: Job) -> float | None:
        """By what was seen. Args: job: any."""
        return self._pace.expected_s(job.size)

    async def generate(self, job: Job, run: Run) -> list[bytes]:
        """Images; one that nobody waits for any more ends between two steps.

        Args:
            job: what is to be made. run: is told each step, and tells when to end.

        Raises:
            StoppedError: it was asked to end.
            ApiError: the pipeline does not take that size, or its memory does not suffice.
        """
        begun, loop = time.monotonic(), asyncio.get_running_loop()

        def made() -> None:
            self._pace.observe(job.size, time.monotonic() - begun)
            run.made()

        return await _in_thread(lambda: self._generate(job, run, lambda: loop.call_soon_threadsafe(made)))

    def _generate(self, job: Job, run: Run, made: Callable[[], object]) -> list[bytes]:
        import torch

        generators = [torch.Generator(self._adapter.device).manual_seed(job.seed + i) for i in range(job.images)]

        def between(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            run.step(index + 1)
            return tensors

        told = {"negative_prompt": job.negative_prompt, "guidance_scale": job.guidance_scale}
        takes = inspect.signature(self._pipeline.__call__).parameters
        for name, value in told.items():
            if value is not None and name not in takes:
                raise _refused(f"{name} is not an argument of model {self.model}", name)
        try:
            found = self._pipeline(
                job.prompt,
                width=job.width,
                height=job.height,
                num_inference_steps=job.steps,
                num_images_per_prompt=job.images,
                generator=generators,
                callback_on_step_end=between,
                callback_on_step_end_tensor_inputs=[],
                output_type="pil",
                **{name: value for name, value in told.items() if value is not None},
            )
        except StoppedError:
            raise
        except (torch.OutOfMemoryError, MemoryError):
            raise _too_large(job) from None
        except RuntimeError as error:  # the processor's allocator has no exception of its own
            if "can't allocate memory" not in str(error):
                raise
            raise _too_large(job) from None
        except ValueError as error:
            size = f"{job.width}x{job.height}"
            # what a pipeline says of a value names sizes and types, never the prompt's text
            raise _refused(f"model {self.model} refuses {size} with {job.steps} steps: {error}", "size") from None
        made()  # to write a file of a megapixel takes a tenth of a second, in which a GPU would stand still
        return [_file(picture, job.kind) for picture in found.images]


def _refused(message: str, param: str) -> ApiError:
    return ApiError(400, " ".join(message.split())[:300], param=param, code="invalid_value")


def _too_large(job: Job) -> ApiError:
    message = f"there is not enough memory for {job.images} of {job.width}x{job.height}"
    return ApiError(400, message, param="size", code="out_of_memory")


def _file(picture: Any, kind: str) -> bytes:
    """A picture's file."""
    stream = io.BytesIO()
    fast = {"compress_level": 1} if kind == "png" else {}  # a tenth longer, and the device waits for two thirds as long
    picture.save(stream, format=kind.upper(), **fast)
    return stream.getvalue()


async def _in_thread(work: Callable[[], T]) -> T:
    """Runs in a thread that does not keep the process alive: a step under way may take a minute."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(result: Callable[[], None]) -> None:
        if not done.done():
            result()

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            told = error
            loop.call_soon_threadsafe(finish, lambda: done.set_exception(told))
        else:
            loop.call_soon_threadsafe(finish, lambda: done.set_result(value))

    threading.Thread(target=run, name="diffpolicy-engine", daemon=True).start()
    return await done
