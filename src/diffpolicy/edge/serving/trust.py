"""`Trust`: lets requests with deadlines try whether they can be done, where no server has answered any like them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

LONGEST_S = 120.0
"""Between two tries at most."""
MODELS = 256
"""Names that are remembered, since where no worker says what it serves, clients name what they like."""


@dataclass
class Trust:
    """Models whose first requests did not end within their deadlines.

    Before the first answer of a model the seconds of a request are made up, and if all were refused by them there would
    never be one. But each that cannot be done in time takes a worker until its deadline for nothing; so once one has,
    the next may try after `first_s`, and then after twice as long each time.

    Args:
        first_s: see there.

    Example:
        >>> trust = Trust(first_s=10.0)
        >>> trust.tries("sd3", 0.0), trust.tries("sd3", 1.0)  # none has failed
        (True, True)
        >>> trust.failed("sd3", 5.0)
        >>> trust.tries("sd3", 6.0), trust.tries("sd3", 15.0), trust.tries("sd3", 34.0), trust.tries("sd3", 35.0)
        (False, True, False, True)
    """

    first_s: float
    _next: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    """When one of a model may try again, and seconds until the one after it."""

    def failed(self, model: str, now_s: float) -> None:
        """The deadline of a request passed while a worker was at it. Args: model: its name. now_s: the time."""
        if model not in self._next:
            self._next[model] = (now_s + self.first_s, 2.0 * self.first_s)
            if len(self._next) > MODELS:
                self._next.popitem(last=False)

    def tries(self, model: str, now_s: float) -> bool:
        """Whether a request may try now; if so, the next may later. Args: model: its name. now_s: the time."""
        next_s, wait_s = self._next.get(model, (now_s, 0.0))
        if now_s < next_s:
            return False
        if model in self._next:
            self._next[model] = (now_s + wait_s, min(2.0 * wait_s, LONGEST_S))
        return True
