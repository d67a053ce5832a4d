"""What methods can train, from what they declare: actions by their heads, and what a problem may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from diffpolicy.methods.method import Method, Situation
from diffpolicy.methods.rollouts import RolloutMethod
from diffpolicy.policies.heads import (
    BoundedHead,
    CategoricalHead,
    CompositeHead,
    Head,
    JointHead,
    MultiCategoricalHead,
    SimplexHead,
    TokenHead,
)

ACTIONS: Mapping[str, Head] = {
    "one choice": CategoricalHead(),
    "several choices": MultiCategoricalHead(),
    "within bounds": BoundedHead(),
    "shares of a whole": SimplexHead(),
    "several keys": CompositeHead((CategoricalHead(), BoundedHead())),
    "items together": JointHead(CategoricalHead()),
    "tokens": TokenHead(),
}
"""What is decided, and the head that decides it."""
SITUATIONS: tuple[Situation, ...] = get_args(Situation)


@dataclass(frozen=True)
class Capabilities:
    """What a method can train.

    Args:
        refused: by kind of action, see `ACTIONS`, why it is refused; empty: it is trained.
        serves: what a problem may have.
        transitions: what the method makes of a rollout, `module:function`, so that it trains only where that fits;
            None: what the problem makes, so that it trains on any.
    """

    refused: Mapping[str, str]
    serves: tuple[Situation, ...]
    transitions: str | None

    @classmethod
    def of(cls, method: Method) -> Capabilities:
        """Those that a method declares.

        Example:
            >>> from diffpolicy.experiments import make_method
            >>> Capabilities.of(make_method("dqn")).refused["within bounds"]
            'action values need one choice among some'
        """
        own: Any = method.transitions if isinstance(method, RolloutMethod) else None
        return cls(
            {kind: method.refuses(head) for kind, head in ACTIONS.items()},
            method.serves,
            None if own is None else f"{own.__module__}:{own.__qualname__}",
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "actions": [kind for kind, why in self.refused.items() if not why],
            "serves": list(self.serves),
            "transitions": self.transitions,
        }
