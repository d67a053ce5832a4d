"""`Decider`: asks the policy, and another rule where the policy fails, is late, or has only a share."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpolicy.edge.dispatch.held import Held
from diffpolicy.edge.dispatch.moment import Binding, Dispatcher, Moment
from diffpolicy.edge.dispatch.on_arrival import OnArrival
from diffpolicy.edge.serving.aside import Aside
from diffpolicy.edge.serving.rules import Chooses

logger = logging.getLogger("diffpolicy.serving")
OURS = (Held, OnArrival)
"""Rules whose time is known: they decide in the event loop."""


@dataclass(frozen=True)
class Decision:
    """What was decided.

    Args:
        binding: None: all go on waiting. by: who decided. seconds: that it took.
        failed: why the policy was not followed: raised, late, impossible or foreign-work; None: it was.
    """

    binding: Binding | None
    by: str
    seconds: float
    failed: str | None = None


class Decider:
    """Whom the dispatcher asks.

    A policy that is not ours decides in a thread, so that one which sleeps delays no answer: while it is late, requests
    go where they end soonest.

    Args:
        policy: decides. name: as it is shown. within_s: how long it may take.
        last: what decides where it fails.

    Example:
        >>> decider = Decider(Held(), "shortest-first")
        >>> moment = Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0])
        >>> asyncio.run(decider.decide(moment)).binding
        Binding(request=1, server=0)
    """

    def __init__(
        self, policy: Dispatcher, name: str, *, within_s: float = 0.05, last: Dispatcher | None = None, seed: int = 0
    ) -> None:
        self.policy, self.name, self._within = policy, name, within_s
        self.last = OnArrival("least-finish", seed) if last is None else last
        policy.begin(seed)
        inside = isinstance(policy, Held) and (
            policy.choose is not None or not type(policy.order).__module__.startswith("diffpolicy.")
        )
        inside |= isinstance(policy, OnArrival) and not isinstance(policy.weigh, str)
        quick = (type(policy) in OURS and not inside) or (isinstance(policy, Chooses) and policy.quick)
        self._thread = None if quick else Aside("policy")
        self._late: Future[Any] | None = None
        self._told = False

    @property
    def holds(self) -> bool:
        """Whether requests wait for a server to become free."""
        return self.policy.holds

    async def decide(self, moment: Moment) -> Decision:
        """The next binding. Args: moment: at least one request waits, and each can be run by some server."""
        begun = time.perf_counter()
        try:
            if self._late is not None and not self._late.done():
                raise TimeoutError
            binding = await self._ask(moment)
            right = None if binding is None else _possible(binding, moment, self.policy.holds)
            if binding is None or right is not None:
                return Decision(right, self.name, time.perf_counter() - begun)
            failed = "impossible"
        except (TimeoutError, asyncio.TimeoutError):  # two classes on Python 3.10
            failed = "late"
        except Exception as error:  # whatever a policy raises, requests go on
            failed = "raised"
            if not self._told:
                self._told = True
                logger.error("%s raised %s (reported once)", self.name, described(error))
        return self.fall_back(moment, failed, begun)

    def fall_back(self, moment: Moment, why: str = "foreign-work", begun: float | None = None) -> Decision:
        """Sends the longest waiting request to where it ends soonest. Args: moment: as above. why: a word."""
        began = time.perf_counter() if begun is None else begun
        return Decision(self.last.decide(moment), "least-finish", time.perf_counter() - began, why)

    async def _ask(self, moment: Moment) -> Any:
        """The policy's answer. Args: moment: as above."""
        if self._thread is None:
            return self.policy.decide(moment)
        asked = self._thread.submit(lambda: self.policy.decide(moment))
        self._late = asked
        answer = asyncio.wrap_future(asked)
        answer.add_done_callback(lambda x: x.cancelled() or x.exception())  # a late policy may raise when nobody waits
        return await asyncio.wait_for(asyncio.shield(answer), self._within)

    def close(self) -> None:
        """Lets the policy's thread go."""
        if self._thread is not None:
            self._thread.close()


def described(error: BaseException) -> str:
    """An exception in a line, and where it was raised. Args: error: as it was caught."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _possible(binding: Any, moment: Moment, holds: bool) -> Binding | None:
    """A policy's answer, where it is a binding that may be: of a request that waits, on a server that can run it."""
    try:
        request, server = (int(x) for x in binding)
    except (TypeError, ValueError):
        return None
    may = moment.feasible if holds else moment.runs
    rows, columns = may.shape
    if 0 <= request < rows and 0 <= server < columns and bool(may[request, server]):
        return Binding(request, server)
    return None
