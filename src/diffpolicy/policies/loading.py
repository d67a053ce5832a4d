"""What is asked of a policy's file before, and while, its policy is made again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies import files

Made = TypeVar("Made")


def made(make: Callable[[], Made]) -> Made:
    """The policy of a file; whatever is wrong with its config is one sentence."""
    try:
        return make()
    except InputError as error:
        raise InputError(f"config: {error}") from None
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError, ArithmeticError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"'config' does not describe the class: {reason}") from None


def on_meta(make: Callable[[], Made]) -> Made | None:
    """The policy of a file without its memory; None where a class of a user cannot be made so."""
    try:
        with torch.device("meta"):
            return make()
    except InputError as error:
        raise InputError(f"config: {error}") from None
    except Exception:  # what is really wrong shows when it is made in earnest
        return None


def check_size(file: files.PolicyFile) -> None:
    """Refuses more agents than a file has numbers: each has parameters of its own, and making them takes time."""
    agents = file.description["config"].get("agents")
    held = sum(x.numel() for x in file.tensors.values())
    if isinstance(agents, (int, float)) and agents > held:
        raise InputError(f"config: agents is {check.show(agents)}, and the tensors hold {held} numbers")


def check_finite(tensors: dict[str, Tensor]) -> None:
    """Refuses tensors that hold NaN or infinity, under which every choice would be the first one."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            at = (~tensor.isfinite()).nonzero()[0].tolist()
            raise InputError(
                f"tensor '{name}' holds {tensor[tuple(at)].item()} at {at}: its training must have diverged"
            )


def check_keys(config: dict[str, Any]) -> None:
    """Refuses keys of tensordicts that are none: a key is a text, or a list of texts."""
    keys: dict[str, Any] = {}
    for name in ("observation_keys", "action_keys", "mask_keys"):
        many = config.get(name, [])
        each = enumerate(many if isinstance(many, list) else [many])
        keys |= {f"{name}[{k}]": key for k, key in each if key is not None or name != "mask_keys"}
    keys |= {name: config[name] for name in ("action_key", "mask_key", "valid_key") if config.get(name) is not None}
    for name, key in keys.items():
        names = key if isinstance(key, list) else [key]
        if not names or not all(isinstance(n, str) and n for n in names):
            raise InputError(f"config: {name} must be a string or a list of strings, got {check.show(key)}")
    for name, kind in {"information": str, "normalize": bool}.items():
        if not isinstance(config.get(name, kind()), kind):
            raise InputError(f"config: {name} must be a {kind.__name__}, got {check.show(config[name])}")


def as_object(value: Any, name: str) -> dict[str, Any]:
    """A part of a file that holds others. Args: name: of it."""
    if not isinstance(value, dict):
        raise InputError(f"'{name}' must be an object, got {check.show(value)}")
    return value
