"""Arguments that policies share, by name and type, so that a type checker sees them through subclasses."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from tensordict.utils import NestedKey
from torch import nn
from typing_extensions import Required, TypedDict

from diffpolicy._suggest import meant
from diffpolicy.diffusion.processes import Process
from diffpolicy.diffusion.sampler import Sampler
from diffpolicy.errors import InputError
from diffpolicy.policies.guidance import Guidance
from diffpolicy.policies.heads import Head
from diffpolicy.policies.priors import Prior

ASKED = ("action_key", "observation_keys", "mask_key", "share_parameters", "head", "items")
"""Which arguments of `from_specs` say how the specs are read."""


class FreeOptions(TypedDict, total=False):
    """Arguments of `Policy` that no environment tells."""

    condition_dim: int | None
    normalize: bool
    seed: int


class SpecOptions(FreeOptions, total=False):
    """Arguments of `Policy.from_specs`."""

    action_key: NestedKey | list[NestedKey] | None
    observation_keys: Sequence[NestedKey] | None
    mask_key: NestedKey | None
    share_parameters: bool
    head: Head | Literal["sample", "argmax", "simplex"] | None
    items: Literal["independent", "joint"]


class ChoiceOptions(FreeOptions, total=False):
    """Arguments of `Policy`."""

    choices: Required[int]
    observation_dim: Required[int]
    head: Head | None
    agents: int | None
    action_key: NestedKey
    observation_keys: Sequence[NestedKey]
    observation_widths: Sequence[int] | None
    observation_shapes: Sequence[Sequence[int] | None] | None
    observation_values: Sequence[int | None] | None
    mask_key: NestedKey | None
    valid_key: NestedKey | None
    item_dims: int | None
    joint_items: Sequence[int] | None
    action_keys: Sequence[NestedKey] | None
    mask_keys: Sequence[NestedKey | None] | None
    information: str


class DiffusionOptions(SpecOptions, total=False):
    """Arguments of `DiffusionPolicy.from_specs`."""

    prior: Prior | None
    steps: int
    schedule: str | Process
    sampler: str | Sampler | None
    sampler_steps: int | None
    prediction: str
    denoiser: Mapping[str, Any] | nn.Module | None
    condition_drop: float
    guidance: Guidance | None


class FeedforwardOptions(SpecOptions, total=False):
    """Arguments of `FeedforwardPolicy.from_specs`."""

    hidden: Sequence[int]
    act: str


class GreedyValueOptions(FeedforwardOptions, total=False):
    """Arguments of `GreedyValuePolicy.from_specs`."""

    epsilon: float


def check_options(cls: type[Any], options: Iterable[str], told: Iterable[str]) -> None:
    """Refuses arguments that a class does not take, or that are told already.

    Args:
        cls: whose constructor, or those of its bases, are to take them. options: their names.
        told: names of what the environment's specs tell.

    Raises:
        InputError: names the argument, and the one that may have been meant.
    """
    known: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            known |= {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    free = known - set(told) - {"self"}
    for name in options:
        if name in told:
            raise InputError(
                f"{name} of a {cls.__name__} is read from the environment, and cannot be given to from_specs"
            )
        if name not in free:
            # where one is near, it says more than the list of all, which is long
            hint = meant(name, free) or f"; it takes {', '.join(sorted(free))}"
            raise InputError(f"a {cls.__name__} takes no argument {name!r}{hint}")
