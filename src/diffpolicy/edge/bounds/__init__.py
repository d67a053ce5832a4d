"""How far from possible: lower bounds, a clairvoyant search, the best fixed split."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.bounds.episode import Episode as Episode
    from diffpolicy.edge.bounds.episode import check_linear as check_linear
    from diffpolicy.edge.bounds.lower import LowerBound as LowerBound
    from diffpolicy.edge.bounds.lower import pooled_bound as pooled_bound

attach(
    __name__,
    {
        "Episode": "diffpolicy.edge.bounds.episode",
        "LowerBound": "diffpolicy.edge.bounds.lower",
        "check_linear": "diffpolicy.edge.bounds.episode",
        "pooled_bound": "diffpolicy.edge.bounds.lower",
    },
)
__all__ = (
    "Episode",
    "LowerBound",
    "check_linear",
    "pooled_bound",
)
