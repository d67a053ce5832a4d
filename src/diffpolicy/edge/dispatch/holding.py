"""`Holding`: how requests of a scenario are held, as the commands are told it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from diffpolicy import _validate as check
from diffpolicy.edge.dispatch.moment import Dispatcher
from diffpolicy.edge.dispatch.named import DEFAULT_ORDER, make_held


@dataclass(frozen=True)
class Holding:
    """How requests are held until a server is free.

    Args:
        order: of `make_held`.
        dead_s: seconds between a binding and the earliest start: what a call to the server costs.
        lead_s: a server counts as free so many seconds before its request is expected to end.
        split: whether a request of several images is sent image by image, maybe to several servers; it is put in order
            by all that is left of it, and has ended with its last image.

    Raises:
        InputError: there is no such order, or a value is out of range.

    Example:
        >>> Holding("first-come", dead_s=0.1).told()
        'first-come, dead time 0.1 s'
    """

    order: str = DEFAULT_ORDER
    dead_s: float = 0.0
    lead_s: float = 0.0
    split: bool = False

    def __post_init__(self) -> None:
        make_held(self.order)
        check.number(self.dead_s, "dead time", least=0)
        check.number(self.lead_s, "lead", least=0)
        check.flag(self.split, "split")

    @property
    def dispatcher(self) -> Dispatcher:
        """A new one that holds in this order."""
        return make_held(self.order)

    def told(self) -> str:
        """In words; of what is as usual the order alone."""
        more = [f"dead time {self.dead_s:g} s"] * (self.dead_s > 0) + [f"lead {self.lead_s:g} s"] * (self.lead_s > 0)
        return ", ".join([self.order, *more, *["image by image"] * self.split])

    def to_dict(self) -> dict[str, Any]:
        """What is told, as JSON."""
        return {"binding": "free", **asdict(self)}


DEFAULT = Holding()
"""How requests are held where nothing else is said."""
