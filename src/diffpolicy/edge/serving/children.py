"""`Children`: commands of this package as processes that end with this one, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from diffpolicy.errors import WorkError

START_S = 120.0
"""A command must say that it is ready so soon."""
GRACE_S = 10.0


class Children:
    """Starts commands that tell in a line of JSON when they are ready; on leaving, all of them are gone.

    Each has a pipe as its stdin, at whose end it ends by itself: after a kill -9 of this process, too.

    Example:
        >>> Children().processes
        []
    """

    def __init__(self) -> None:
        self.processes: list[asyncio.subprocess.Process] = []
        self._reading: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Children:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end(self.processes)

    async def start(self, *arguments: str) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
        """Starts `diffpolicy ARGUMENTS --json`.

        Args:
            arguments: the command and its options.

        Returns:
            The process, and what it told when it was ready.

        Raises:
            WorkError: it ended instead, or said nothing in time.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "diffpolicy.cli.attended", *arguments, "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.PIPE,
            # a Ctrl-C at the terminal reaches this process alone, which ends them in order
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stderr is not None
        what = f"diffpolicy {arguments[0]}"
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_S)
        except (TimeoutError, asyncio.TimeoutError):
            raise WorkError(f"{what} was not ready within {START_S:g} s") from None
        if not line:
            told = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
            raise WorkError(f"{what} ended before it was ready: {told[-1] if told else 'it said nothing'}")
        self._drain(process.stderr)
        ready: dict[str, Any] = json.loads(line)
        return process, ready

    def _drain(self, stream: asyncio.StreamReader) -> None:
        """Reads on, so that a process which says much does not wait for a reader."""

        async def read() -> None:
            while await stream.read(65536):
                pass

        task = asyncio.ensure_future(read())
        self._reading.add(task)  # the event loop itself holds tasks by weak references
        task.add_done_callback(self._reading.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def end(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        """Asks processes to end, and makes those that do not. Args: processes: some of them."""
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in list(processes):
            try:
                await asyncio.wait_for(process.wait(), GRACE_S)
            except (TimeoutError, asyncio.TimeoutError):
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        self.processes = [process for process in self.processes if process not in processes]
