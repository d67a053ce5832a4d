"""`python -m diffpolicy.cli.attended COMMAND ...`: a command that ends when whoever started it is gone.

Its stdin is a pipe of which nothing is read but its end: the system closes it however the other process ends, by
kill -9 too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from diffpolicy import _signals
from diffpolicy.cli.main import main

GRACE_S = 10.0
"""For an end in order."""


def watch() -> None:
    """Waits for the end of stdin, then ends this process: in order, and at once where that takes too long."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(_signals.exit_status(signal.SIGTERM))


def attend() -> None:
    """Ends this process when its stdin does."""
    threading.Thread(target=watch, name="end-with-stdin", daemon=True).start()


if __name__ == "__main__":
    attend()
    sys.exit(main())
