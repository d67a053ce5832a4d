"""`FallsBack`: holds requests, but binds them at once while others work on the same servers."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffpolicy.edge.dispatch.moment import Binding, Dispatcher, Moment
from diffpolicy.edge.dispatch.on_arrival import OnArrival


@dataclass
class FallsBack:
    """One dispatcher decides, and another one while any server has foreign work.

    Who holds a request counts on the free server to be his. Where others send there too, what he held comes behind
    theirs, out of all order: two dispatchers that hold without seeing each other lose three quarters of the gain.

    Args:
        held: decides as long as all work is one's own.
        otherwise: decides while a server has foreign work.

    Attributes:
        times: how often it fell back.
        bound: how many requests it bound by `otherwise`.

    Example:
        >>> from dataclasses import replace
        >>> import numpy as np
        >>> rule = FallsBack(Held())
        >>> moment = Moment.of(service_s=[[4.0]], wait_s=[3.0], starts_s=[1.0])
        >>> rule.decide(moment) is None, rule.holds
        (True, True)
        >>> rule.decide(replace(moment, foreign=np.array([1]))), rule.holds, rule.times
        (Binding(request=0, server=0), False, 1)
    """

    held: Dispatcher
    otherwise: Dispatcher = field(default_factory=OnArrival)
    times: int = field(init=False, default=0)
    bound: int = field(init=False, default=0)
    fallen: bool = field(init=False, default=False)

    @property
    def holds(self) -> bool:
        """Whether the one that decided last does."""
        return (self.otherwise if self.fallen else self.held).holds

    def begin(self, seed: int) -> None:
        """Begins both, and counts from nothing. Args: seed: at least 0."""
        self.held.begin(seed)
        self.otherwise.begin(seed)
        self.times, self.bound, self.fallen = 0, 0, False

    def decide(self, moment: Moment) -> Binding | None:
        """As the one that the moment asks for. Args: moment: at least one request waits."""
        foreign = bool(moment.foreign.any())
        self.times += foreign and not self.fallen
        self.fallen = foreign
        if not foreign:
            return self.held.decide(moment)
        binding = self.otherwise.decide(moment)
        self.bound += binding is not None
        return binding
