"""Worked problems beside offloading: environments, rules and what is known of the best there is."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.problems.clinic import Clinic as Clinic
    from diffpolicy.problems.clinic import dearest_first as dearest_first
    from diffpolicy.problems.clinic import longest_queue as longest_queue
    from diffpolicy.problems.filling import water_level as water_level
    from diffpolicy.problems.gang import Gang as Gang
    from diffpolicy.problems.power_allocation import PowerAllocation as PowerAllocation
    from diffpolicy.problems.power_allocation import water_filling as water_filling
    from diffpolicy.problems.provider_selection import Providers as Providers
    from diffpolicy.problems.provider_selection import ProviderSelection as ProviderSelection
    from diffpolicy.problems.shares import lone_transitions as lone_transitions
    from diffpolicy.problems.shares import shares_of as shares_of
    from diffpolicy.problems.split import Split as Split
    from diffpolicy.problems.split import SplitRollout as SplitRollout
    from diffpolicy.problems.split import best_split as best_split
    from diffpolicy.problems.split import soft_delay as soft_delay

HOMES = {
    "Clinic": "clinic",
    "Gang": "gang",
    "PowerAllocation": "power_allocation",
    "ProviderSelection": "provider_selection",
    "Providers": "provider_selection",
    "Split": "split",
    "SplitRollout": "split",
    "best_split": "split",
    "dearest_first": "clinic",
    "lone_transitions": "shares",
    "longest_queue": "clinic",
    "shares_of": "shares",
    "soft_delay": "split",
    "water_filling": "power_allocation",
    "water_level": "filling",
}
attach(__name__, {name: f"{__name__}.{home}" for name, home in HOMES.items()})
__all__ = (
    "Clinic",
    "Gang",
    "PowerAllocation",
    "ProviderSelection",
    "Providers",
    "Split",
    "SplitRollout",
    "best_split",
    "dearest_first",
    "lone_transitions",
    "longest_queue",
    "shares_of",
    "soft_delay",
    "water_filling",
    "water_level",
)
