"""Worked problems beside offloading: environments, rules and what is known of the best there is."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.problems.clinic import Clinic as Clinic
    from diffpolicy.problems.clinic import dearest_first as dearest_first
    from diffpolicy.problems.clinic import longest_queue as longest_queue

__getattr__, __dir__ = attach(
    __name__,
    {
        "Clinic": "diffpolicy.problems.clinic",
        "dearest_first": "diffpolicy.problems.clinic",
        "longest_queue": "diffpolicy.problems.clinic",
    },
)
__all__ = ("Clinic", "dearest_first", "longest_queue")
