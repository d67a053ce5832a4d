"""`DiffusersAdapter`: a text-to-image pipeline of diffusers in this process, on this machine."""

from __future__ import annotations

import gc
import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffpolicy.edge.hardware.measuring import devices
from diffpolicy.edge.hardware.measuring.stage_timer import StageTimer
from diffpolicy.edge.hardware.models.architectures import ARCHITECTURES, SD3_MEDIUM, architecture
from diffpolicy.edge.hardware.models.building import count_parameters, random_pipeline, sd3_variants, step_flops
from diffpolicy.edge.hardware.models.checkpoints import check_source, count_checkpoint, load_pipeline, quiet
from diffpolicy.edge.hardware.optional import need
from diffpolicy.edge.hardware.schema.records import ColdStart, Memory, ModelInfo
from diffpolicy.edge.hardware.server_adapter import (
    CallRefusedError,
    Description,
    GenerateRequest,
    GenerateTiming,
    OutOfMemoryError,
)
from diffpolicy.errors import InputError

RANDOM = "random"
DENOISERS = ("transformer", "unet")


class DiffusersAdapter:
    """Builds or loads a pipeline and times its calls, one at a time.

    With random weights the architecture has its full size, so that speed and memory are those of the real model and
    nothing is downloaded; the images are noise.

    Args:
        model: `sd3-medium`, `sdxl`, `sd15` or `tiny`, or a folder or hub id with a diffusers pipeline.
        weights: `random`, or a folder or hub id with weights of `model`.
        device: `cpu` or `cuda:INDEX`; None: the first GPU, or the processor.
        dtype: `float16`, `bfloat16` or `float32`; None: float16 on a GPU and float32 on a processor.
        t5: keep SD3's third text encoder.
        offload_encoders: keep each network in host memory until its turn (diffusers' model offload), so that text
            encoders and denoiser never share the GPU.
        measure_load: with random weights, also write them to a temporary folder and time loading them from it.
        seed: of random weights. name: of the server; None: from model and device.

    Raises:
        InputError: the device is not there, the model is unknown, or the extra is not installed.

    Example:
        >>> server = DiffusersAdapter("tiny", device="cpu")
        >>> server.name, server.start().build_s > 0
        ('tiny-cpu', True)
        >>> len(server.generate(GenerateRequest("a cat", 64, 64, steps=4)).step_s)
        4
    """

    concurrent = False

    def __init__(
        self,
        model: str = "tiny",
        *,
        weights: str = RANDOM,
        device: str | None = None,
        dtype: str | None = None,
        t5: bool = False,
        offload_encoders: bool = False,
        measure_load: bool = False,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        self._device = devices.check_device(device or devices.default_device())
        self._dtype = devices.check_dtype(dtype, self._device)
        self.device: str | None = str(self._device)
        if offload_encoders and self._device.type == "cpu":
            raise InputError("offloading encoders needs a GPU, but the device is cpu")
        self._architecture = architecture(model, t5=t5) if model in ARCHITECTURES else None
        self.source = None if self._architecture and weights == RANDOM else weights if weights != RANDOM else model
        if self.source is not None:
            check_source(self.source)
        # of a path only the last name, so that no profile tells where people keep their files
        self.model = (
            self._architecture.name if self._architecture else Path(model).name if Path(model).exists() else model
        )
        self.name = name or f"{self.model}-{self._device.type}"
        self.t5, self.offload_encoders, self.measure_load, self.seed = t5, offload_encoders, measure_load, seed
        self._pipeline: Any = None
        self._text_tokens: int | None = None

    def start(self) -> ColdStart:
        """Builds or loads the pipeline; that it fits into memory is seen before anything is taken."""
        begun = time.perf_counter()
        for package in ("accelerate", "transformers", "diffusers"):
            need(package)
        with quiet():
            imported = time.perf_counter()
            self._check_memory()
            counted = time.perf_counter()
            build_s = load_s = None
            if self._architecture is not None and self.source is None:
                place = not self.offload_encoders
                try:
                    pipeline = random_pipeline(
                        self._architecture, self._device, self._dtype, seed=self.seed, place=place
                    )
                except torch.OutOfMemoryError:
                    raise InputError(f"model {self.model} does not fit into the memory of {self.device}") from None
                self._ready(pipeline)
                build_s = time.perf_counter() - counted
                if self.measure_load:
                    load_s = self._time_load(pipeline)
            else:
                self._ready(load_pipeline(str(self.source), self._dtype, t5=self.t5))
                load_s = time.perf_counter() - counted
        # to change the model is to load another one: the old one is dropped in no time
        return ColdStart(imported - begun, build_s, load_s, None, load_s)

    @property
    def pipeline(self) -> Any:
        """The pipeline of diffusers; None before `start` and after `close`."""
        return self._pipeline

    def describe(self) -> Description:
        networks = self._networks()
        parameters = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
        sizes = {
            name: sum(p.numel() * p.element_size() for p in network.parameters()) for name, network in networks.items()
        }
        bytes_each = self._dtype.itemsize
        variants = sd3_variants() if self.model == SD3_MEDIUM.name else None
        encoders = tuple(name for name in networks if name.startswith("text_encoder"))
        settings: Any = getattr(self._denoiser(), "config", None)
        config = (
            None
            if settings is None
            else json.dumps(
                # the path that a checkpoint came from is nobody's business, and does not change the model
                {name: value for name, value in settings.items() if name != "_name_or_path"},
                sort_keys=True,
                default=str,
            )
        )
        return Description(
            devices.server_info(self._device, self.name),
            devices.software(self._dtype, offload_encoders=self.offload_encoders),
            ModelInfo(
                name=self.model,
                weights=RANDOM if self.source is None else "checkpoint",
                dtype=devices.dtype_name(self._dtype),
                parameters=parameters,
                text_encoders=encoders,
                text_tokens=self._text_tokens,
                config_sha256=None if config is None else hashlib.sha256(config.encode()).hexdigest(),
            ),
            Memory(
                source="computed from parameters",
                weights_bytes=sum(sizes.values()),
                encoders_bytes=sum(sizes[name] for name in encoders),
                without_t5_bytes=None if variants is None else variants[0] * bytes_each,
                with_t5_bytes=None if variants is None else variants[1] * bytes_each,
            ),
        )

    def generate(self, request: GenerateRequest) -> GenerateTiming:
        """One call of the pipeline with its default guidance.

        Args:
            request: what is asked for.

        Returns:
            What it took.

        Raises:
            OutOfMemoryError: the device's memory does not suffice.
            CallRefusedError: the pipeline does not take the size or the steps.
        """
        gpu = self._device.type == "cuda"
        generator = torch.Generator(self._device).manual_seed(request.seed)
        if gpu:
            torch.cuda.reset_peak_memory_stats(self._device)
        try:
            with StageTimer(self._pipeline, self._denoiser(), self._device, steps=request.steps) as timer:
                self._pipeline(
                    request.prompt,
                    width=request.width,
                    height=request.height,
                    num_inference_steps=request.steps,
                    num_images_per_prompt=request.batch,
                    generator=generator,
                    output_type="pil",
                )
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise self._out_of_memory(error) from None
        except RuntimeError as error:  # the processor's allocator has no exception of its own
            if "can't allocate memory" not in str(error):
                raise
            raise self._out_of_memory(error) from None
        except ValueError as error:
            size = f"{request.width}x{request.height}"
            reason = f"refuses {size} with {request.steps} steps: {' '.join(str(error).split())}"
            raise CallRefusedError(f"model {self.model}", reason, again=False) from None
        self._text_tokens = timer.text_tokens
        peak = torch.cuda.max_memory_allocated(self._device) if gpu else None
        return GenerateTiming(timer.total_s, timer.text_s, timer.step_s, timer.decode_s, peak, timer.network_calls)

    def step_flops(self, width: int, height: int, batch: int) -> float | None:
        """Operations of one step, where the architecture is built in."""
        return None if self._architecture is None else step_flops(self._architecture, width, height, batch)

    def close(self) -> None:
        self._pipeline = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _ready(self, pipeline: Any) -> None:
        """Puts a pipeline to work, once it is seen that its denoiser can be timed."""
        if not any(isinstance(getattr(pipeline, name, None), nn.Module) for name in DENOISERS):
            kind = type(pipeline).__name__
            raise InputError(f"model {self.model} is a {kind} without a component {' or '.join(DENOISERS)} to time")
        try:
            if self.offload_encoders:
                pipeline.enable_model_cpu_offload(device=self._device)
            else:
                pipeline.to(self._device)
        except torch.OutOfMemoryError:
            raise InputError(f"model {self.model} does not fit into the memory of {self.device}") from None
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline

    def _time_load(self, pipeline: Any) -> float:
        """Seconds from a folder in the page cache to the device; the pipeline that is loaded takes over."""
        with tempfile.TemporaryDirectory(prefix="diffpolicy-") as folder:
            try:
                pipeline.save_pretrained(folder)
            except OSError as error:
                raise InputError(f"cannot write the weights of {self.model} to time loading them: {error}") from None
            self.close()
            del pipeline
            begun = time.perf_counter()
            self._ready(load_pipeline(folder, self._dtype, t5=self.t5))
            return time.perf_counter() - begun

    def _check_memory(self) -> None:
        counts = count_parameters(self._architecture) if self._architecture else count_checkpoint(str(self.source))
        if counts is None:
            return
        if not self.t5:
            counts.pop("text_encoder_3", None)
        largest = max(counts.values()) if self.offload_encoders else sum(counts.values())
        devices.check_memory(largest * self._dtype.itemsize, self._device, f"model {self.model}")

    def _networks(self) -> dict[str, nn.Module]:
        return {name: part for name, part in self._pipeline.components.items() if isinstance(part, nn.Module)}

    def _denoiser(self) -> nn.Module:
        networks = self._networks()
        return next(networks[name] for name in DENOISERS if name in networks)

    def _out_of_memory(self, error: BaseException) -> OutOfMemoryError:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return OutOfMemoryError(" ".join(str(error).split())[:200] or "out of memory")
