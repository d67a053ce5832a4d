"""Where a denoising chain starts: Gaussian noise (D2SAC), or the action that is remembered (LAD-TS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.heads import CategoricalHead, Head
from diffpolicy.policies.registry import part_form, part_of


@dataclass(frozen=True)
class Prior:
    """Where x_I comes from: a base of `GaussianPrior`, `ActionMemory` and priors of your own.

    Attributes:
        remembers: whether it reads a recurrent latent action.

    Raises:
        InputError: `from_dict` is given what describes no prior.

    Example:
        >>> Prior.from_dict({"type": "ActionMemory", "key": "step-item"}) == ActionMemory(key="step-item")
        True
    """

    remembers: ClassVar[bool]

    def to_dict(self) -> dict[str, Any]:
        """JSON form: the class's name and its fields."""
        form = part_form(self)
        return {"type": form.pop("kind"), **form}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Prior:
        """The prior that `to_dict` described; classes are looked up among those that are imported.

        Args:
            data: with the class's name as `type`, and its fields.

        Raises:
            InputError: no such class, or a field that it has not.
        """
        if not isinstance(data, Mapping):
            raise InputError(f"prior must be an object with its 'type', got {check.show(data)}")
        told = dict(data)
        if not isinstance(told.get("type"), str):
            raise InputError(f"prior must have a 'type', such as GaussianPrior or ActionMemory, got {check.show(data)}")
        return part_of({"kind": told.pop("type", None), **told}, Prior, "prior")


@dataclass(frozen=True)
class GaussianPrior(Prior):
    """x_I ~ N(0, 1), as in D2SAC (arXiv 2303.13052).

    Example:
        >>> GaussianPrior().to_dict(), GaussianPrior().remembers
        ({'type': 'GaussianPrior'}, False)
    """

    remembers: ClassVar[bool] = False


@dataclass(frozen=True)
class ActionMemory(Prior):
    """x_I is what was remembered of an earlier decision: the latent action of LAD-TS (arXiv 2412.18212).

    Args:
        key: what a memory belongs to. `item`: agent and index, as in the paper's figure; `step-item`: step, agent and
            index, as in the released code. `task` and `slot-task`, their names of before, are still read.
        store: what is remembered, `x0` (the figure) or `probabilities`, softmax(x0) (the code). x0 is clipped to [-1,
            1]: raw, the chain amplifies it by 1 / sqrt(abar_I), 12.5 with the VP schedule, at each visit, and it
            overflows within an episode.
        start: what is there before the first decision, `normal` (N(0, 1)) or `uniform` (1/A); also for indices never
            seen.
        lifetime: `run`: memories outlive episodes while training; `episode`: each episode starts afresh.

    Raises:
        InputError: a word is none of these.

    Example:
        >>> ActionMemory(key="item", store="x0").remembers
        True
    """

    remembers: ClassVar[bool] = True
    key: Literal["item", "step-item", "task", "slot-task"] = "item"
    store: Literal["x0", "probabilities"] = "x0"
    start: Literal["normal", "uniform"] = "normal"
    lifetime: Literal["run", "episode"] = "run"

    def __post_init__(self) -> None:
        if isinstance(self.key, str):
            object.__setattr__(self, "key", _BEFORE.get(self.key, self.key))
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"ActionMemory.{name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")

    def stored(self, x0: Tensor, head: Head = CategoricalHead()) -> Tensor:  # noqa: B008 (frozen)
        """What is remembered of a decision. Args: x0: the end of the chain, `[*, W]`. head: says what it means."""
        return (head.probabilities(x0) if self.store == "probabilities" else head.remember(x0)).detach()

    def blank(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        """Memories before any decision, `[*, A]`; without a generator the mode of their law."""
        if self.start == "uniform":
            return torch.full(shape, 1.0 / shape[-1], device="cpu")
        return (
            torch.zeros(shape, device="cpu")
            if generator is None
            else torch.randn(shape, generator=generator, device=generator.device)
        )


_BEFORE = {"task": "item", "slot-task": "step-item"}
"""What files of earlier versions call the keys of a memory."""
_CHOICES = {
    name: get_args(choice)
    for name, choice in {
        "key": Literal["item", "step-item"],
        "store": Literal["x0", "probabilities"],
        "start": Literal["normal", "uniform"],
        "lifetime": Literal["run", "episode"],
    }.items()
}
