"""Which head an action gets, and heads by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffpolicy import _validate as check
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError
from diffpolicy.policies.heads.bounded import BoundedHead
from diffpolicy.policies.heads.categorical import CategoricalHead
from diffpolicy.policies.heads.composite import CompositeHead
from diffpolicy.policies.heads.head import Head
from diffpolicy.policies.heads.joint import JointHead
from diffpolicy.policies.heads.multi_categorical import MultiCategoricalHead
from diffpolicy.policies.heads.simplex import SimplexHead
from diffpolicy.policies.heads.token import TokenHead
from diffpolicy.policies.heads.vector import VectorHead
from diffpolicy.policies.keys import Action
from diffpolicy.policies.registry import part_of, part_with

HEADS: dict[str, type[Head]] = {
    kind.__name__: kind
    for kind in (CategoricalHead, MultiCategoricalHead, BoundedHead, TokenHead, VectorHead, SimplexHead)
}
"""Those of one item; the first that takes a kind of action is the usual one."""


def head_for(action: Action, draw: str = "sample") -> Head:
    """The usual head of an action, in its size.

    Args:
        action: of a spec, such as `Keys.of(env).action`.
        draw: `sample` or `argmax`.

    Returns:
        The first kind of head that takes this kind of action.

    Raises:
        InputError: the action is a vector without bounds, of which no head is the usual one.

    Example:
        >>> from diffpolicy.policies.keys import Keys
        >>> head_for(Keys.of(Clinic(1)).action)
        CategoricalHead(draw='sample', choices=3, one_hot=False)
    """
    if action.kind == "composite":
        return for_items(CompositeHead(tuple(head_for(part, draw) for part in action.parts)), action)
    if action.kind == "unbounded":
        raise InputError(
            f"action {action.key!r} is a vector without bounds: say head='simplex' for shares that sum to one, or pass "
            "a head of your own"
        )
    kind = next(head for head in HEADS.values() if action.kind in head.kinds)
    return for_items(kind(draw), action)  # type: ignore[call-arg]


def named_head(word: str) -> Head:
    """A head by what it decides, where an action's spec does not tell.

    Args:
        word: `simplex`, shares that sum to one.

    Returns:
        The head, not yet in its size.

    Raises:
        InputError: no such word.

    Example:
        >>> named_head("simplex")
        SimplexHead(draw='sample', choices=0)
    """
    if word not in NAMED:
        words = [*NAMED, "sample", "argmax"]
        raise InputError(
            f"head must be a Head, {' or '.join(NAMED)}, sample or argmax, got {word!r}{meant(str(word), words)}"
        )
    return NAMED[word]()


NAMED: dict[str, type[Head]] = {"simplex": SimplexHead}
"""Heads that are asked for by a word."""


def for_items(head: Head, action: Action) -> Head:
    """Sizes a head for an action, for all its items together where it has several.

    Args:
        head: of one item, or of all. action: of a spec.

    Returns:
        The head itself in its size, or a `JointHead` of it.

    Example:
        >>> from diffpolicy.policies.keys import Action
        >>> for_items(CategoricalHead(), Action("action", "categorical", (3,), (), items=(4,))).width
        12
    """
    return head.sized(action) if isinstance(head, JointHead) or not action.items else JointHead(head).sized(action)


def head_from_dict(data: Mapping[str, Any]) -> Head:
    """The head that `to_dict` described; without a `kind` a categorical one, as earlier files have it.

    Args:
        data: the class's name as `kind`, or `module:Class`, and its fields.

    Returns:
        The head.

    Raises:
        InputError: no such head, or an argument that it does not take.

    Example:
        >>> head_from_dict(BoundedHead(low=(0.0,), high=(1.0,)).to_dict()).high
        (1.0,)
    """
    if not isinstance(data, Mapping):
        raise InputError(f"head must be an object, got {check.show(data)}")
    if "kind" not in data:
        return part_of({"kind": "CategoricalHead", **data}, Head, "head")  # type: ignore[type-abstract]
    return part_of(data, Head, "head")  # type: ignore[type-abstract]


def head_of_width(head: Head, width: int) -> Head:
    """A head in its size.

    Args:
        head: a categorical one may not know its number of choices yet.
        width: of the networks' output, W.

    Returns:
        The head, of that width.

    Raises:
        InputError: it is of another width.

    Example:
        >>> head_of_width(CategoricalHead(), 3).choices
        3
    """
    if isinstance(head, CategoricalHead) and not head.choices:
        return part_with(head, choices=width)
    if head.width != width:
        raise InputError(f"a {type(head).__name__} of width {head.width} cannot read {width} outputs")
    return head
