"""`CompositeHead`: several actions of an item, each under a key of its own, read off parts of one x_0."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from diffpolicy._total import total
from diffpolicy.errors import InputError
from diffpolicy.policies.actions import side_by_side
from diffpolicy.policies.heads.head import MOST_JOINT, Head, combined
from diffpolicy.policies.keys import Action
from diffpolicy.policies.masks import NO_CHOICE
from diffpolicy.policies.registry import part_form, part_of


@dataclass(frozen=True)
class CompositeHead(Head):
    """One head a key: x_0, laws, draws and masks are theirs side by side, and so are actions, as numbers `[.., D]`.

    Given x_0 the actions are independent, so log-probabilities and entropies add up; what binds them is the chain that
    x_0 comes from. An expectation is enumerated, or pathwise, where that of all parts is; else it is sampled.

    Args:
        parts: the head of each key, in the keys' order; x_0 is a law's parameters in all of them.
        masked: whether the environment gives a mask for the key; a policy sets it from the specs.

    Raises:
        InputError: there is no part, one gives the action itself, or some draw and others take the argmax; or there are
            too many joint choices where all of them are asked for.

    Example:
        >>> head = CompositeHead((CategoricalHead(choices=3), BoundedHead(low=(0.0,), high=(1.0,))))
        >>> head.width, head.event, head.expectation
        (5, (2,), 'sampled')
        >>> head.apart(head.mode(head.law(torch.zeros(5))))
        (tensor(0), tensor([0.5000]))
    """

    parts: tuple[Head, ...]
    masked: tuple[bool, ...] = ()

    kinds = ("composite",)

    def __post_init__(self) -> None:
        made = [
            part_of(part, Head, f"head.parts[{k}]") if isinstance(part, Mapping) else part  # type: ignore[type-abstract]
            for k, part in enumerate(self.parts if isinstance(self.parts, Sequence) else ())
        ]
        if not made or any(not isinstance(part, Head) or part.x0_is == "action" for part in made):
            raise InputError(f"a CompositeHead takes heads whose x_0 holds a law's parameters, got {self.parts!r}")
        object.__setattr__(self, "parts", tuple(made))
        object.__setattr__(self, "masked", tuple(map(bool, self.masked)) or (False,) * len(made))

    def sized(self, action: Action) -> CompositeHead:
        self._check_kind(action)
        if len(action.parts) != len(self.parts):
            keys = ", ".join(repr(part.key) for part in action.parts)
            raise InputError(f"a CompositeHead of {len(self.parts)} parts cannot decide {keys}")
        made = CompositeHead(
            tuple(head.sized(part) for head, part in zip(self.parts, action.parts, strict=True)),
            tuple(part.mask is not None for part in action.parts),
        )
        draws = [part.draw_input is not None for part in made.parts]
        if any(draws) and not all(draws):
            raise InputError("the parts of a CompositeHead must all draw their action, or all take the argmax")
        return made

    @property
    def expectation(self) -> Literal["enumerated", "pathwise", "sampled"]:  # type: ignore[override]
        """That of the parts where it is the same, else `sampled`."""
        kinds = {part.expectation for part in self.parts}
        return kinds.pop() if len(kinds) == 1 else "sampled"

    @property
    def width(self) -> int:
        return sum(part.width for part in self.parts)

    @property
    def event(self) -> tuple[int, ...]:
        return (sum(self._sizes),)

    @property
    def _sizes(self) -> list[int]:
        """Numbers of each part's action."""
        return [math.prod(part.event) for part in self.parts]

    def _laws(self, x: Tensor) -> Sequence[Tensor]:
        """What lies side by side, a part each. Args: x: `[.., W]`."""
        shares: tuple[Tensor, ...] = x.split([part.width for part in self.parts], -1)
        return shares

    def apart(self, action: Tensor) -> tuple[Tensor, ...]:
        """The action of each key, as its environment takes it. Args: action: `[.., D]`."""
        values = zip(action.split(self._sizes, -1), self.parts, strict=True)
        return tuple(
            value.reshape([*action.shape[:-1], *part.event]).to(part.written_as or value.dtype)
            for value, part in values
        )

    def together(self, values: Sequence[Tensor]) -> Tensor:
        """What `apart` gave, as numbers `[.., D]`. Args: values: of each key, `[.., *event]` of its part."""
        return side_by_side(values, [part.event for part in self.parts])

    def _each(self, call: Callable[[Head, Tensor], Tensor], x: Tensor) -> list[Tensor]:
        """What a function makes of each part and what is its own of x. Args: x: `[.., W]`."""
        return [call(part, own) for part, own in zip(self.parts, self._laws(x), strict=True)]

    def _of(self, call: Callable[[Head, Tensor, Tensor], Tensor], law: Tensor, action: Tensor) -> list[Tensor]:
        """The same of laws and actions; -1, no choice, counts as 0, but is a number as any where no choice is made."""
        found = zip(self.parts, self._laws(law), self.apart(action), strict=True)
        return [call(part, own, a.clamp_min(0) if part.written_as == torch.int64 else a) for part, own, a in found]

    # Masks

    @property
    def maskable(self) -> bool:
        return any(self.masked)

    @property
    def mask_width(self) -> int:
        return sum(part.mask_width for part, masked in zip(self.parts, self.masked, strict=True) if masked)

    def read_mask(self, mask: Tensor) -> Tensor:
        """From the masks of all keys that have one, side by side, to one of x_0, true where there is none."""
        if mask.shape[-1] != self.mask_width:
            raise InputError(f"masks of {self.mask_width} choices are needed, got shape {list(mask.shape)}")
        found, at = [], 0
        for part, masked in zip(self.parts, self.masked, strict=True):
            if masked:
                found.append(part.read_mask(mask[..., at : at + part.mask_width]))
                at += part.mask_width
            else:
                found.append(mask.new_ones(*mask.shape[:-1], part.width))
        return torch.cat(found, -1)

    def first(self) -> Tensor:
        return torch.cat([part.first() for part, masked in zip(self.parts, self.masked, strict=True) if masked])

    def _masks(self, mask: Tensor | None) -> list[Tensor | None]:
        """The mask of each part that has one. Args: mask: `[.., W]`, or None."""
        if mask is None:
            return [None] * len(self.parts)
        return [own if masked else None for own, masked in zip(self._laws(mask), self.masked, strict=True)]

    def allows(self, mask: Tensor) -> Tensor:
        each = [part.allows(m) for part, m in zip(self.parts, self._masks(mask), strict=True) if m is not None]
        return torch.stack(each).all(0)

    def refuse(self, action: Tensor, mask: Tensor | None) -> Tensor:
        parts = zip(self.parts, self.apart(action), self._masks(mask), strict=True)
        return self.together([part.refuse(a, m) for part, a, m in parts])

    def impossible(self, action: Tensor, mask: Tensor | None = None) -> Tensor:
        parts = zip(self.parts, self.apart(action), self._masks(mask), strict=True)
        none = torch.stack([part.impossible(a, m) for part, a, m in parts]).any(0)
        for part, numbers in zip(self.parts, action.split(self._sizes, -1), strict=True):
            if part.written_as is not None:
                none = none | (numbers != numbers.round()).any(-1)
        return none

    def forbidden(self, action: Tensor, mask: Tensor) -> Tensor:
        parts = zip(self.parts, self.apart(action), self._masks(mask), strict=True)
        return torch.stack([part.forbidden(a, m) for part, a, m in parts if m is not None]).any(0)

    def beyond(self, action: Tensor, slack: float) -> Tensor:
        parts = zip(self.parts, self.apart(action), strict=True)
        return torch.stack([part.beyond(own, slack) for part, own in parts]).any(0)

    # The law

    def law(self, x0: Tensor, mask: Tensor | None = None) -> Tensor:
        parts = zip(self.parts, self._laws(x0), self._masks(mask), strict=True)
        return torch.cat([part.law(x, m) for part, x, m in parts], -1)

    def draws(self, rows: torch.Size, generator: torch.Generator) -> Tensor | None:
        drawn = [part.draws(rows, generator) for part in self.parts]
        given = [d.reshape(*rows, -1) for d in drawn if d is not None]
        return torch.cat(given, -1) if given else None

    @property
    def draw_input(self) -> tuple[str, tuple[int, ...]] | None:
        return ("mixed", (sum(count for _, count in self.drawn),)) if self.drawn else None

    @property
    def drawn(self) -> list[tuple[str, int]]:
        """Of each part that draws, the law of its numbers, `uniform` or `normal`, and how many they are."""
        inputs = [part.draw_input for part in self.parts]
        return [(each[0], math.prod(each[1])) for each in inputs if each is not None]

    def _numbers(self, draws: Tensor) -> list[Tensor]:
        """What `draws` gave, a part each. Args: draws: `[.., numbers of all]`."""
        shapes = [part.draw_input[1] for part in self.parts if part.draw_input is not None]
        own = zip(draws.split([count for _, count in self.drawn], -1), shapes, strict=True)
        return [x.reshape(*draws.shape[:-1], *shape) for x, shape in own]

    def sample(self, law: Tensor, draws: Tensor | None) -> Tensor:
        if draws is None or self.draw_input is None:
            return self.mode(law)
        parts = zip(self.parts, self._laws(law), self._numbers(draws), strict=True)
        return self.together([part.sample(own, d) for part, own, d in parts])

    def mode(self, law: Tensor) -> Tensor:
        return self.together(self._each(lambda part, own: part.mode(own), law))

    def log_prob(self, law: Tensor, action: Tensor) -> Tensor:
        return torch.stack(self._of(lambda part, own, a: part.log_prob(own, a), law, action)).sum(0)

    def entropy(self, law: Tensor) -> Tensor:
        return torch.stack(self._each(lambda part, own: part.entropy(own), law)).sum(0)

    def spread(self, law: Tensor, draws: Tensor) -> Tensor:
        if self.expectation == "enumerated":
            return self.entropy(law)
        parts = zip(self.parts, self._laws(law), self._numbers(draws), strict=True)
        return torch.stack([part.spread(own, d) for part, own, d in parts]).sum(0)

    def remember(self, x0: Tensor) -> Tensor:
        return torch.cat(self._each(lambda part, own: part.remember(own), x0), -1)

    def probabilities(self, x0: Tensor) -> Tensor:
        return torch.cat(self._each(lambda part, own: part.probabilities(own), x0), -1)

    def uniform(self, rows: torch.Size, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        parts = zip(self.parts, self._masks(mask), strict=True)
        return self.together([part.uniform(rows, own, generator) for part, own in parts])

    @property
    def feature_width(self) -> int:
        return sum(part.feature_width for part in self.parts)

    def features(self, action: Tensor) -> Tensor:
        return torch.cat([part.features(a) for part, a in zip(self.parts, self.apart(action), strict=True)], -1)

    # Where an expectation is enumerated

    @property
    def joint(self) -> int:
        count = math.prod(part.joint for part in self.parts)
        if count > MOST_JOINT:
            each = " times ".join(str(part.joint) for part in self.parts)
            raise InputError(f"{count} joint choices, {each}, are more than the {MOST_JOINT} enumerated")
        return count

    def joint_log_prob(self, law: Tensor) -> Tensor:
        """Sums over all combinations, the last key running fastest."""
        return combined(self._each(lambda part, own: part.joint_log_prob(own), law), torch.add)

    def joint_mask(self, mask: Tensor) -> Tensor:
        return combined(self._each(lambda part, own: part.joint_mask(own), mask), torch.logical_and)

    def joint_index(self, action: Tensor) -> Tensor:
        index = torch.zeros(action.shape[:-1], dtype=torch.int64, device=action.device)
        none = torch.zeros_like(index, dtype=torch.bool)
        for part, own in zip(self.parts, self.apart(action), strict=True):
            number = part.joint_index(own)
            index, none = index * part.joint + number, none | (number < 0)
        return index.masked_fill(none, NO_CHOICE)  # else it were the number of another joint choice

    # Where it is pathwise

    def with_log_prob(self, law: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        numbers = draws.split(self._sizes, -1)
        pairs = [part.with_log_prob(own, d) for part, own, d in zip(self.parts, self._laws(law), numbers, strict=True)]
        return self.together([action for action, _ in pairs]), torch.stack([p for _, p in pairs]).sum(0)

    def freedom(self, law: Tensor) -> Tensor | float:
        return total(part.freedom(own) for part, own in zip(self.parts, self._laws(law), strict=True))

    def log_volume(self, law: Tensor) -> Tensor | float:
        return total(part.log_volume(own) for part, own in zip(self.parts, self._laws(law), strict=True))

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": "CompositeHead",
            "parts": [part_form(part) for part in self.parts],
            "masked": list(self.masked),
        }
