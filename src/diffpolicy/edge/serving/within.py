"""`within`: an end in time for what is awaited."""

from __future__ import annotations

import asyncio
import math
import sys
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

if sys.version_info >= (3, 11):

    def within(seconds: float) -> AbstractAsyncContextManager[Any]:
        """Cancels what is awaited inside after some seconds.

        Args:
            seconds: infinite for never.

        Raises:
            TimeoutError: on leaving, it was cancelled so.

        Example:
            >>> async def once() -> str:
            ...     try:
            ...         async with within(0.01):
            ...             await asyncio.sleep(1)
            ...     except TimeoutError:
            ...         return "late"
            >>> asyncio.run(once())
            'late'
        """
        return asyncio.timeout(seconds if math.isfinite(seconds) else None)

else:
    from collections.abc import AsyncIterator

    from diffpolicy.edge.hardware.optional import need

    @asynccontextmanager
    async def within(seconds: float) -> AsyncIterator[None]:
        """See above."""
        with need("anyio", "serving").fail_after(seconds):
            yield
