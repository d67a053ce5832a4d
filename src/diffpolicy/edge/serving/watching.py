"""`Watched`: a file that is read again when it has changed, while a service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from diffpolicy.edge.serving.aside import Aside
from diffpolicy.edge.serving.bell import Bell
from diffpolicy.edge.serving.decider import described
from diffpolicy.errors import InputError

logger = logging.getLogger("diffpolicy.serving")
EVERY_S = 1.0
"""Between two looks at a file."""
T = TypeVar("T")


@dataclass(frozen=True)
class Watched(Generic[T]):
    """A file, and what is done with what it says by now.

    Args:
        what: names it in a message. stays: what holds while it is broken, the end of a sentence.
        changed: reads it, in a thread, whether or not it looks as before; None: nothing new. It raises `InputError`
            where the file is broken, once for each state of it; what it reads next is new, though it be as before.
        take: takes what was read, in the event loop.
        told: rings to have it read at once, whatever it looks like.
    """

    what: str
    stays: str
    changed: Callable[[bool], T | None]
    take: Callable[[T], None]
    told: Bell = field(default_factory=Bell)

    async def watch(
        self, every_s: float = EVERY_S, heard: Callable[[str, bool], None] = lambda what, taken: None
    ) -> None:
        """Looks at it now and then, in a thread: a disk that is slow, or gone, keeps no request waiting.

        Args:
            every_s: between two looks. heard: is told of each change what has changed, and whether it was taken.
        """
        aside = Aside(self.what.replace(" ", "-"))
        try:
            while True:
                await self.told.wait(every_s)
                always = self.told.rung
                self.told.clear()
                try:
                    found = await asyncio.wrap_future(aside.submit(partial(self.changed, always)))
                    if found is not None:
                        self.take(found)
                        heard(self.what, True)
                except InputError as error:
                    logger.error("%s; %s", error, self.stays)
                    heard(self.what, False)
                except Exception as error:  # whatever it is, the next change of the file must be seen
                    logger.error("the %s could not be loaded: %s", self.what, described(error))
                    heard(self.what, False)
        finally:
            aside.close()
