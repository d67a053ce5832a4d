"""The learned price: its law, the rule and the policy that decide by it, and its compiled form."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.pricing.policy import FleetPolicy as FleetPolicy

attach(
    __name__,
    {
        "FleetPolicy": "diffpolicy.edge.pricing.policy",
    },
)
__all__ = ("FleetPolicy",)
