"""Untrained rules, and the registry of them."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.rules.registry import HEURISTICS as HEURISTICS
    from diffpolicy.edge.rules.rule import Heuristic as Heuristic

attach(
    __name__,
    {
        "HEURISTICS": "diffpolicy.edge.rules.registry",
        "Heuristic": "diffpolicy.edge.rules.rule",
    },
)
__all__ = (
    "HEURISTICS",
    "Heuristic",
)
