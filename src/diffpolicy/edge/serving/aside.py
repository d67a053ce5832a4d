"""`Aside`: calls in a thread beside the event loop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Aside:
    """Calls one after the other in a thread that the process does not wait for at its end.

    Python waits for those of `asyncio.to_thread`, and one that hangs, as at a disk of a network, would keep a service
    from ending.

    Args:
        name: of the thread.

    Example:
        >>> aside = Aside("adding")
        >>> aside.submit(lambda: 1 + 1).result()
        2
        >>> aside.close()
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"diffpolicy-{name}", daemon=True).start()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Begins a call once those before it have ended. Args: call: of no arguments."""
        future: Future[Any] = Future()
        self._calls.put((future, call))
        return future

    def close(self) -> None:
        """Begins no more."""
        self._calls.put(None)

    def _run(self) -> None:
        while (given := self._calls.get()) is not None:
            future, call = given
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # it belongs to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)
