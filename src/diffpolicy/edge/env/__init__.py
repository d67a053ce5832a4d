"""`OffloadingEnv`: what it shows, where its slots come from, and its transitions."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.env.env import OffloadingEnv as OffloadingEnv
    from diffpolicy.edge.env.transitions import released_transitions as released_transitions
    from diffpolicy.edge.env.transitions import task_transitions as task_transitions
    from diffpolicy.edge.information import LEVELS as LEVELS
    from diffpolicy.edge.information import Information as Information

attach(
    __name__,
    {
        "Information": "diffpolicy.edge.information",
        "LEVELS": "diffpolicy.edge.information",
        "OffloadingEnv": "diffpolicy.edge.env.env",
        "released_transitions": "diffpolicy.edge.env.transitions",
        "task_transitions": "diffpolicy.edge.env.transitions",
    },
)
__all__ = (
    "LEVELS",
    "Information",
    "OffloadingEnv",
    "released_transitions",
    "task_transitions",
)
