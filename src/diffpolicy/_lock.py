"""The system's locks of open files: one holder at a time, for as long as its process lives."""

from __future__ import annotations

import time
from enum import Enum

try:
    import fcntl
except ImportError:  # not on Windows, where two writers of one folder must not meet
    fcntl = None  # type: ignore[assignment]


class Lock(Enum):
    """What came of asking for one."""

    HELD = "held"
    OTHERS = "somebody else's"
    NONE = "the file system has none"


def acquire(handle: int, patience_s: float, pause_s: float) -> Lock:
    """Waits for the lock of an open file or folder; it goes with the handle, or with the process.

    Args:
        handle: of `os.open`. patience_s: for how long somebody else is waited for. pause_s: between two tries.
    """
    if fcntl is None:
        return Lock.NONE
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Lock.HELD
        except BlockingIOError:
            if time.monotonic() > end:
                return Lock.OTHERS
        except OSError:  # some network file systems have no locks
            return Lock.NONE
        time.sleep(pause_s)
