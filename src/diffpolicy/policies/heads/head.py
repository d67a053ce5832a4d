"""`Head`: what x_0, the end of a chain, means for an action."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policies.keys import Action
from diffpolicy.policies.registry import part_form

MOST_JOINT = 4096
"""Joint choices over which an expectation is still enumerated."""


@dataclass(frozen=True)
class Head(ABC):
    """A law of actions whose parameters x_0 holds, or the action itself.

    A head is a set of pure functions of rows; it draws nothing itself. `[..]` below is the shape of the rows. A row's
    x_0 is K slots of W / K numbers, side by side; where it is the action, in tokens, it is `[.., K]`.

    Attributes:
        kinds: kinds of actions that it decides, see `Action.kind`.
        x0_is: `parameters` of a law from which the action is drawn, or the `action` itself, which `encode` gives back.
        tokens: whether x_0 is the action in tokens, `[.., K]`, instead of numbers.
        expectation: how an expectation over its law is had: `enumerated` over all joint choices, `pathwise` through
            the draw, or `sampled`. An objective says which it needs.

    Raises:
        InputError: a law is asked for what it has not, such as choices that a mask forbids, an entropy in closed form,
            or an enumeration.

    Example:
        >>> head = CategoricalHead(choices=3)
        >>> law = head.law(torch.tensor([[0.0, 2.0, 1.0]]), mask=torch.tensor([[True, False, True]]))
        >>> isinstance(head, Head), head.mode(law), head.log_prob(law, torch.tensor([2])).exp()
        (True, tensor([2]), tensor([0.7311]))
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    x0_is: ClassVar[Literal["parameters", "action"]] = "parameters"
    tokens: ClassVar[bool] = False
    expectation: ClassVar[Literal["enumerated", "pathwise", "sampled"]] = "sampled"

    @abstractmethod
    def sized(self, action: Action) -> Head:
        """The head for an action of a spec.

        Raises:
            InputError: the action is of a kind that it does not decide.
        """

    @property
    @abstractmethod
    def width(self) -> int:
        """Numbers in x_0 of one row, W."""

    @property
    def slots(self) -> int:
        """In how many parts of like width x_0 falls, K."""
        return 1

    @property
    @abstractmethod
    def event(self) -> tuple[int, ...]:
        """Shape of one row's action."""

    @property
    def written_as(self) -> torch.dtype | None:
        """The type in which actions are written; None: that of the law's numbers."""
        return None

    @property
    def maskable(self) -> bool:
        """Whether it has choices that a mask could forbid."""
        return type(self).mask_width is not Head.mask_width

    @property
    def mask_width(self) -> int:
        """Choices in a mask as environments give it."""
        raise InputError(f"a {type(self).__name__} has no choices that a mask could forbid")

    def read_mask(self, mask: Tensor) -> Tensor:
        """A mask as the environment gives it, as one of x_0, `[.., W]`. Args: mask: `[.., mask_width]`."""
        return mask

    def first(self) -> Tensor:
        """The mask, as the environment would give it, of an item that does not exist: its first choice alone."""
        mask = torch.zeros(self.mask_width, dtype=torch.bool)
        mask[0] = True
        return mask

    def allows(self, mask: Tensor) -> Tensor:
        """Whether rows have an allowed choice, bool `[..]`. Args: mask: bool `[.., W]`."""
        return mask.any(-1)

    def refuse(self, action: Tensor, mask: Tensor | None) -> Tensor:
        """Actions with -1 where nothing is allowed, `[.., *event]`. Args: mask: bool `[.., W]`, or None."""
        return action

    def impossible(self, action: Tensor, mask: Tensor | None = None) -> Tensor:
        """Whether actions are none that it decides, bool `[..]`: a choice that there is not, a share where none may be.

        A choice that a mask forbids is told by its log-probability instead.

        Args:
            action: `[.., *event]`. mask: bool `[.., W]`, or None.
        """
        lead = action.shape[: action.ndim - len(self.event)]
        return torch.zeros(lead, dtype=torch.bool, device=action.device)

    def forbidden(self, action: Tensor, mask: Tensor) -> Tensor:
        """Whether a choice of actions is one that a mask forbids, bool `[..]`.

        Args:
            action: `[.., *event]`. mask: bool `[.., W]`.
        """
        if self.written_as is None or self.feature_width != mask.shape[-1]:
            return torch.zeros(mask.shape[:-1], dtype=torch.bool, device=mask.device)
        return ((self.features(action) > 0.5) & ~mask).any(-1)

    def beyond(self, action: Tensor, slack: float) -> Tensor:
        """Whether numbers of actions lie outside of their bounds, bool `[..]`.

        Args:
            action: `[.., *event]`. slack: by which they may, of half of a range.
        """
        lead = action.shape[: action.ndim - len(self.event)]
        return torch.zeros(lead, dtype=torch.bool, device=action.device)

    def law(self, x0: Tensor, mask: Tensor | None = None) -> Tensor:
        """Parameters of the law, `[.., W]`. Args: x0: `[.., W]`. mask: allowed choices, bool `[.., W]`, or None."""
        return x0

    def draws(self, rows: torch.Size, generator: torch.Generator) -> Tensor | None:
        """The random numbers that a sample of rows takes, or None. Args: rows: their shape. generator: draws them."""
        return None

    @property
    def draw_input(self) -> tuple[str, tuple[int, ...]] | None:
        """Name, `uniform` or `normal`, and shape of what a sample of one row takes; None if it takes nothing."""
        return None

    @abstractmethod
    def sample(self, law: Tensor, draws: Tensor | None) -> Tensor:
        """Actions, `[.., *event]`. Args: law: of `law`, `[.., W]`. draws: of `draws`; None: `mode`."""

    @abstractmethod
    def mode(self, law: Tensor) -> Tensor:
        """The most probable actions, `[.., *event]`. Args: law: `[.., W]`."""

    def encode(self, action: Tensor) -> Tensor:
        """The x_0 that is an action, where x_0 is one: what imitation corrupts. Args: action: `[.., *event]`."""
        raise InputError(f"the x_0 of a {type(self).__name__} holds a law's parameters, so no action is one")

    def uniform(self, rows: torch.Size, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        """Actions drawn alike from all that are allowed, `[*rows, *event]`.

        Args:
            rows: their shape. mask: allowed choices, bool `[*rows, W]`, or None: all. generator: draws them.
        """
        raise InputError(f"a {type(self).__name__} does not say how an action is drawn alike from all")

    @property
    def feature_width(self) -> int:
        """Numbers in `features` of one row."""
        raise InputError(f"a {type(self).__name__} does not say how a critic reads its action")

    def features(self, action: Tensor) -> Tensor:
        """Actions as a critic Q(s, a) reads them, `[.., feature_width]`: one-hot choices, or numbers in [-1, 1].

        Args:
            action: `[.., *event]`; -1, no choice, is read as the first one.
        """
        raise InputError(f"a {type(self).__name__} does not say how a critic reads its action")

    def log_prob(self, law: Tensor, action: Tensor) -> Tensor:
        """Log-probability (density) of actions, `[..]`. Args: law: `[.., W]`. action: `[.., *event]`."""
        raise InputError(f"{type(self).__name__} has no log-probability")

    def entropy(self, law: Tensor) -> Tensor:
        """Entropy of the law, nats `[..]`. Args: law: `[.., W]`."""
        raise InputError(f"the entropy of a {type(self).__name__} has no closed form")

    def spread(self, law: Tensor, draws: Tensor) -> Tensor:
        """The entropy, or an estimate of it from one draw with a gradient through that, nats `[..]`.

        Args:
            law: `[.., W]`. draws: of `draws`.
        """
        if self.expectation != "pathwise":
            return self.entropy(law)
        # of the draw itself: told of the action alone, what lies beyond the last number before a bound is lost
        return -self.with_log_prob(law, draws)[1]

    def remember(self, x0: Tensor) -> Tensor:
        """What an action memory that stores x_0 keeps of it, `[.., W]`: clipped, so that no visit amplifies it."""
        return x0.clamp(-1, 1)

    def probabilities(self, x0: Tensor) -> Tensor:
        """Chances of choices, for a memory that stores them, `[.., W]`. Args: x0: `[.., W]`."""
        raise InputError(f"a {type(self).__name__} has no probabilities that could be remembered; store x0")

    # Where an expectation is enumerated

    @property
    def joint(self) -> int:
        """Number of joint choices, J.

        Raises:
            InputError: its law is not enumerated.
        """
        raise InputError(f"the choices of a {type(self).__name__} cannot be enumerated")

    def joint_log_prob(self, law: Tensor) -> Tensor:
        """Log-probability of every joint choice, `[.., J]`. Args: law: `[.., W]`."""
        raise InputError(f"the choices of a {type(self).__name__} cannot be enumerated")

    def joint_mask(self, mask: Tensor) -> Tensor:
        """Which joint choices are allowed, bool `[.., J]`. Args: mask: bool `[.., W]`."""
        raise InputError(f"the choices of a {type(self).__name__} cannot be enumerated")

    def joint_index(self, action: Tensor) -> Tensor:
        """Number of a joint choice, int64 `[..]`, -1 where a part of it is no choice. Args: action: `[.., *event]`."""
        raise InputError(f"the choices of a {type(self).__name__} cannot be enumerated")

    # Where an expectation is pathwise

    def with_log_prob(self, law: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Actions `[.., *event]` and their log-density `[..]`, both with gradients.

        Args:
            law: of `law`. draws: of N(0, 1), of the shape of actions.
        """
        raise InputError(f"the draw of a {type(self).__name__} has no gradient")

    def freedom(self, law: Tensor) -> Tensor | float:
        """How many numbers of an action are free, of rows `[..]` or of all. Args: law: of `law`."""
        raise InputError(f"the draw of a {type(self).__name__} has no gradient")

    def log_volume(self, law: Tensor) -> Tensor | float:
        """Logarithm of the volume of all actions, in cubes of sides 2, `[..]` or of all rows. Args: law: of `law`."""
        raise InputError(f"the draw of a {type(self).__name__} has no gradient")

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return part_form(self)

    def _check_kind(self, action: Action) -> None:
        if action.kind not in self.kinds:
            kinds = " or ".join(self.kinds)
            raise InputError(f"a {type(self).__name__} decides {kinds} actions, and {action.key!r} is {action.kind}")


def combined(parts: Iterable[Tensor], join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A value for each combination of the parts' choices, `[.., J_1 ... J_n]`, that of the last part running fastest.

    Args:
        parts: values of each part's choices, `[.., J_k]`. join: makes one value of two.
    """

    def joined(first: Tensor, other: Tensor) -> Tensor:
        return join(first.unsqueeze(-1), other.unsqueeze(-2)).flatten(-2)

    return reduce(joined, parts)


def draw_of(draw: str, name: str) -> None:
    """Raises InputError if a head's `draw` is none. Args: draw: of the head. name: of its class."""
    if draw not in ("sample", "argmax"):
        raise InputError(f"{name}.draw must be sample or argmax, got {draw!r}")
