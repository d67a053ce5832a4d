"""How much of a slot a decision may use: the levels of information, and the seed that the stations share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

Information = Literal["paper", "private", "stale", "live"]
"""`paper`: what the paper's agents see. `private`: queues at the slot's start, and of arrivals a station's own alone.
`stale`: the same, and all stations' arrivals of earlier slots. `live`: what the tasks before did in this slot too."""


LEVELS: tuple[Information, ...] = get_args(Information)


def shared_seeds(seed: int, stream: int, episodes: Sequence[int], slots: Sequence[int]) -> list[int]:
    """A number per environment and slot that all stations know: 63 bits mixed of (seed, stream, episode, slot)."""
    of_run = _mix(_mix(seed) ^ stream)
    return [_mix(_mix(of_run ^ k) ^ t) for k, t in zip(episodes, slots, strict=True)]


def _mix(x: int) -> int:
    """SplitMix64's finaliser, kept to 63 bits."""
    x = (x + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (x ^ (x >> 31)) >> 1
