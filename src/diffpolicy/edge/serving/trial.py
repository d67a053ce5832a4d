"""`Trial`: a policy that decides on a share of the requests, beside another, until it proves worse."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass

from diffpolicy.edge.serving.evidence import Evidence

PROOF = 200.0
"""Evidence at which a trial ends: a policy that is like the other loses its share in one trial of so many at most,
however long the trial."""
RECENT = 500
"""Last answers of each side by whose means the policy must be worse, too."""
LATER = 2
"""Turns after which one counts: from when one that arrived so much later was answered."""
LOST = 20.0
"""What counts at least for a request that failed, in units of its own service."""


@dataclass(frozen=True)
class Side:
    """What was seen of one side.

    Args:
        answers: requests, or turns where they take turns. slowdown: their mean delay over what they take alone on the
            fastest worker; None without any.
    """

    answers: int
    slowdown: float | None


class Trial:
    """Compares slowdowns, delays over what the requests take alone on the fastest worker, of the two sides.

    Which request belongs to which side is drawn from its name, so the sides meet the same mix at the same times. That
    holds for two rules that bind on arrival. A rule that holds would find all seats taken by one that does not, so
    where one of them holds, they take turns: all that arrives, and all that waits, belongs to one side for `turn_s`.

    The policy loses its share when there is `PROOF` that its requests, or turns, are slower (`Evidence`), and their
    mean of late is longer as well: a policy that makes many a little slower and spares few a long wait is not worse.

    Args:
        share: of requests, or of turns, that the policy decides on. seed: of the draws.
        turn_s: None: by request.

    Example:
        >>> trial = Trial(0.5)
        >>> for k in range(100):
        ...     ended = trial.seen(k % 2 == 0, 3.0 + k % 5 if k % 2 == 0 else 1.0 + k % 5, 0.0)
        >>> trial.share
        0.0
    """

    def __init__(self, share: float, seed: int = 0, turn_s: float | None = None) -> None:
        self.share, self.turn_s, self._seed = share, turn_s, seed
        self._proof = Evidence(share) if share < 1 else None
        self._means = {True: _Mean(), False: _Mean()}
        self._recent: dict[bool, deque[float]] = {arm: deque(maxlen=RECENT) for arm in (True, False)}
        self._turns: dict[int, tuple[bool, _Mean]] = {}
        self._counted = -1

    @property
    def sides(self) -> dict[str, Side]:
        """What was seen of the `policy` and of what decides on the rest; nothing of a policy that decides on all."""
        if self._proof is None:
            return {}
        means = {"policy": self._means[True], "other": self._means[False]}
        return {name: Side(mean.count, mean.mean if mean.count else None) for name, mean in means.items()}

    @property
    def evidence(self) -> float | None:
        """That the policy is worse: 1 at the beginning, `PROOF` ends the trial; None of one that decides on all."""
        return None if self._proof is None else self._proof.value

    @property
    def left(self) -> int | None:
        """How many more of the policy's answers, or turns, should end the trial if the difference stays as it is.

        None: nothing speaks against the policy so far, or the trial is over.
        """
        if self._proof is None or not self.share or not self._worse:
            return None
        return self._proof.left(self._means[True].count, PROOF)

    def verdict(self, policy: str, other: str) -> str:
        """Why the share is taken back, in a sentence. Args: policy: its name. other: of what decides on the rest."""
        ours, others = self._late(True), self._late(False)
        return (
            f"the share of {policy} is taken back: its mean delay was {ours:.3g} times what its requests take alone, "
            f"that of {other} {others:.3g} times; {other} decides on all from now on"
        )

    def turn(self, now_s: float) -> int:
        """The number of a turn. Args: now_s: the time."""
        return int(now_s // (self.turn_s or 1.0))

    def arm(self, number: str, now_s: float) -> bool:
        """Whether the policy decides on a request. Args: number: its name. now_s: when it arrives."""
        if self.share >= 1:
            return True
        name = number if self.turn_s is None else f"turn {self.turn(now_s)}"
        drawn = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()[:8]
        return int.from_bytes(drawn, "big") / 2.0**64 < self.share

    def seen(self, arm: bool, slowdown: float, arrived_s: float) -> bool:
        """Takes up how a request ended.

        Args:
            arm: whose. slowdown: its, infinite if it failed: then the slowest of late counts, and at least `LOST`.
            arrived_s: when it came.

        Returns:
            Whether the policy is given up with it.
        """
        if self._proof is None:
            return False
        if slowdown == float("inf"):
            slowdown = max([LOST, *self._recent[True], *self._recent[False]])
        if self.turn_s is None:
            return self._count(arm, slowdown)
        turn, ended = self.turn(arrived_s), False
        if turn > self._counted:  # the lot of one that counted is known, so nothing more can be bet on it
            self._turns.setdefault(turn, (arm, _Mean()))[1].add(slowdown)
        for past in sorted(each for each in self._turns if each <= turn - LATER):
            whose, mean = self._turns.pop(past)
            ended = self._count(whose, mean.mean) or ended
        self._counted = max(self._counted, turn - LATER)
        return ended

    def _count(self, arm: bool, slowdown: float) -> bool:
        """Takes up a request, or a turn. Returns: whether the policy is given up with it."""
        self._means[arm].add(slowdown)
        self._recent[arm].append(slowdown)
        if self._proof is None or not self.share:  # it is over
            return False
        self._proof.seen(arm, slowdown)
        if self._proof.value < PROOF or not self._worse:
            return False
        self.share = 0.0
        return True

    @property
    def _worse(self) -> bool:
        """Whether the policy's mean of late is longer."""
        return all(self._recent.values()) and self._late(True) > self._late(False)

    def _late(self, arm: bool) -> float:
        """The mean of what a side had of late."""
        return sum(self._recent[arm]) / max(len(self._recent[arm]), 1)


class _Mean:
    """A running mean."""

    def __init__(self) -> None:
        self.count, self.mean = 0, 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.mean += (value - self.mean) / self.count
