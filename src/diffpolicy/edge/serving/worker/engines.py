"""`make_engine`: an engine from what a user types after `--model`."""

from __future__ import annotations

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._imports import import_attribute, is_attribute
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.serving.worker.emulated import EmulatedEngine
from diffpolicy.edge.serving.worker.engine import Engine
from diffpolicy.errors import InputError

EMULATE = "emulate:"


def make_engine(
    model: str, *, scale: float = 1.0, slots: int = 1, device: str | None = None, seed: int = 0, threads: int = 1
) -> Engine:
    """Makes an engine from its name; loads torch only where that is needed.

    Args:
        model: `emulate:PROFILE`, `emulate:PROFILE@SPEED`, `tiny`, `sd3-medium`, `sdxl`, `sd15`, or a folder or hub id
            of a diffusers pipeline; or `module:attribute`, a function without arguments that makes an engine of yours.
        scale: by which an emulated server's times are multiplied. slots: requests at once; emulated servers alone take
            more than one. device: of a pipeline. seed: of random weights. threads: of torch on a processor, where more
            than one are slower when anything else runs.

    Returns:
        The engine, not loaded.

    Raises:
        InputError: there is no such model, or an option does not belong to it.

    Example:
        >>> make_engine("emulate:mlenergy-h100-sd3-medium@2").speed
        2.0
    """
    if model.startswith(EMULATE):
        if device is not None:
            raise InputError(f"--device works only with a model that runs here, and --model is {check.show(model)}")
        name, at, word = model.removeprefix(EMULATE).partition("@")
        speed = _speed(word) if at else 1.0
        return EmulatedEngine(ServerProfile.load(name), speed=speed, scale=scale, slots=slots)
    if scale != 1.0:
        raise InputError(f"--time-scale works only with --model emulate:PROFILE, and --model is {check.show(model)}")
    if slots != 1:
        raise InputError(
            f"--slots must be 1 for --model {check.show(model)}, which runs one request at a time, got {slots}"
        )
    if is_attribute(model):
        return _own(model, device)
    from diffpolicy.edge.hardware.models.architectures import ARCHITECTURES
    from diffpolicy.edge.hardware.models.checkpoints import check_source

    if model not in ARCHITECTURES:
        check_source(model)
    from diffpolicy.edge.serving.worker.pipeline import PipelineEngine

    return PipelineEngine(model, device=device, seed=seed, threads=threads)


def _own(model: str, device: str | None) -> Engine:
    """An engine of the user's."""
    if device is not None:
        raise InputError(f"--device works only with a model of diffusers, and --model is {check.show(model)}")
    engine = import_attribute(model, "--model")()
    if not isinstance(engine, Engine):
        raise InputError(f"--model {model} makes a {type(engine).__name__}, which lacks members of an Engine")
    return engine


def _speed(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise InputError(f"the speed after @ of --model must be a number, got {check.show(word)}") from None
    return check.number(value, "the speed after @ of --model", least=_limits.SLOWEST, most=_limits.FASTEST)
