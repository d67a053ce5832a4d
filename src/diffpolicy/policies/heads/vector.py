"""`VectorHead`: x_0 is the action itself, a vector within bounds, scaled to [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policies.heads.bounds import WithinBounds


@dataclass(frozen=True)
class VectorHead(WithinBounds):
    """a = middle + half x_0, with x_0 brought within [-1, 1]: what a denoising loss learns of actions.

    What the chain draws is all that is drawn; the law of the action has no closed form. It is the sibling of
    `TokenHead` for numbers.

    Args:
        low, high: bounds of each of D dimensions; a policy sets them from its action's spec.

    Raises:
        InputError: bounds are not finite or do not rise; a mask has nothing to forbid here.

    Example:
        >>> head = VectorHead(low=(0.0, -1.0), high=(4.0, 1.0))
        >>> head.mode(torch.tensor([0.5, 7.0])), head.encode(torch.tensor([3.0, 1.0]))
        (tensor([3., 1.]), tensor([0.5000, 1.0000]))
    """

    x0_is: ClassVar[Literal["parameters", "action"]] = "action"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        return len(self.low)

    def law(self, x0: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            raise InputError("a VectorHead has no choices that a mask could forbid")
        return x0

    def sample(self, law: Tensor, draws: Tensor | None) -> Tensor:
        return self.mode(law)

    def mode(self, law: Tensor) -> Tensor:
        """The action that x_0 is. Args: law: x_0, `[.., D]`."""
        return self.unscaled(law.clamp(-1, 1))

    def encode(self, action: Tensor) -> Tensor:
        return self.scaled(action)
