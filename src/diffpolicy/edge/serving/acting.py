"""`Acting`: who decides on which of the waiting requests, and whose turn it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from diffpolicy.edge.serving.decider import Decider
from diffpolicy.edge.serving.fair_share import FairShare
from diffpolicy.edge.serving.trial import Trial
from diffpolicy.edge.serving.work import Work


class Acting:
    """The policy, and the other rule beside it or in its place.

    Args:
        policy: decides on its share, or, in the shadow, on nothing. other: on the rest; None: there is none.
        trial: tells the share. shadow: the policy is asked and not followed.
    """

    def __init__(self, policy: Decider, other: Decider | None, trial: Trial, *, shadow: bool = False) -> None:
        self.policy, self.trial, self._other, self._shadow = policy, trial, other, shadow
        self._fair = FairShare()

    @property
    def shadowed(self) -> Decider | None:
        """Who is asked what it would have done; None: nobody."""
        return self.policy if self._shadow and self._other is not None else None

    @property
    def all_hold(self) -> bool:
        """Whether no request is bound while no worker is free."""
        return self.policy.holds and (self._other is None or self._other.holds)

    def turns(self, waiting: Iterable[Work], now_s: float) -> Iterator[tuple[list[Work], Decider]]:
        """Who may be bound next, and who decides on it, by turns.

        Args:
            waiting: in order of arrival. now_s: the time.
        """
        arms: dict[bool, list[Work]] = {}
        arm_now = None if self.trial.turn_s is None else self.trial.arm("", now_s)
        for work in waiting:
            arms.setdefault(work.arm if arm_now is None else arm_now, []).append(work)
        for arm, works in arms.items():
            ours = arm and not self._shadow and self.trial.share > 0
            decider = self.policy if ours else self._other or self.policy
            of: dict[str, list[Work]] = {}
            for work in works:
                of.setdefault(work.request.client, []).append(work)
            for client in self._fair.turns(of):
                yield of[client], decider

    def bound(self, work: Work, expected_s: float, waiting: Iterable[Work]) -> None:
        """A request goes to a worker, which was its client's turn.

        Args:
            work: it. expected_s: that it should take. waiting: who still waits.
        """
        clients = {other.request.client for other in waiting} | {work.request.client}
        if len(clients) > 1:
            self._fair.given(work.request.client, expected_s, among=clients)
