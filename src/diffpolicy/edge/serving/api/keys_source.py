"""`KeysSource`: the API keys that a user named, and what a file says of them by now."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from contextlib import suppress

from diffpolicy import _validate as check
from diffpolicy.edge.serving.api.keys import ADMIN, ApiKeys
from diffpolicy.edge.serving.watching import Watched
from diffpolicy.errors import InputError

logger = logging.getLogger("diffpolicy.serving")
WHAT = "token file"


class KeysSource:
    """Keys of a file, which is read again when it has changed, of an environment variable, or none.

    Who is let in, and who is not any more, is asked for each request; one that was taken is finished.

    Args:
        file: path; None: there is none. variable: its name; None: there is none.
        roles: whether a key named `admin` may do what others may not. Then a file that lacks it all at once is broken:
            without one every key is an operator's, and to take a key away must give nobody more.

    Raises:
        InputError: it cannot be read, or holds no keys.

    Example:
        >>> import pathlib
        >>> _ = pathlib.Path("keys").write_text("shop=0123456789abcdef")
        >>> KeysSource("keys").client("Bearer 0123456789abcdef")
        'shop'
    """

    def __init__(self, file: str | None = None, variable: str | None = None, *, roles: bool = True) -> None:
        self._file, self._roles, self._seen, self._broken = file, roles, "", False
        if file is not None:
            self.keys = self._parsed(self._text())
        elif variable is None:
            self.keys = ApiKeys()
        elif variable in os.environ:
            self.keys = ApiKeys.parse(os.environ[variable], f"environment variable {variable}")
        else:
            raise InputError(f"there is no environment variable {check.show(variable)}, which --token-env names")

    @property
    def needed(self) -> bool:
        """Whether one must be shown."""
        return self.keys.needed

    def client(self, authorization: str | None) -> str:
        """See `ApiKeys`."""
        return self.keys.client(authorization)

    def admit_to_all(self, authorization: str | None) -> None:
        """See `ApiKeys`."""
        self.keys.admit_to_all(authorization)

    def changed(self, always: bool = False) -> ApiKeys | None:
        """The keys, where the file holds others than before; None: nothing new. Nothing is taken up yet.

        Args:
            always: say again what is wrong with it although it is as before.

        Raises:
            InputError: it is broken, said once for each state of it; the keys are returned once it is whole again.
        """
        if self._file is None:
            return None
        before = "" if always else self._seen
        try:
            text = self._text()
        except InputError as error:
            self._seen, self._broken = str(error), True
            if self._seen == before:
                return None
            raise
        if self._seen == before:
            return None
        broken, self._broken = self._broken, True
        keys = self._parsed(text)
        if self._roles and self.keys.has_admin and not keys.has_admin:
            raise InputError(
                f"{self._where} has no key named {ADMIN} any more, which would make every key an operator's: name "
                "one so, or start anew without"
            )
        self._broken = False
        return None if keys == self.keys and not broken else keys

    def watched(self) -> tuple[Watched[ApiKeys], ...]:
        """What is to be looked at while a service runs: the file, if there is one."""
        if self._file is None:
            return ()
        return (Watched(WHAT, "the keys stay as they were", self.changed, self.take),)

    def take(self, keys: ApiKeys) -> None:
        """Lets in by other keys from now on. Args: keys: all of them."""
        before, now = self.keys.tokens.keys(), keys.tokens.keys()
        self.keys = keys
        added, gone = len(now - before), len(before - now)
        logger.info("API keys accepted now: %d (%d added, %d withdrawn)", len(now), added, gone)

    def warn_of_readers(self) -> None:
        """Says so where others on this machine may read the file."""
        with suppress(OSError):
            if self._file is not None and os.stat(self._file).st_mode & stat.S_IROTH:
                logger.warning("%s %s can be read by every user of this machine: chmod o-r it", WHAT, self._file)

    def _text(self) -> str:
        """What the file holds, of which a digest alone is remembered: a key that was withdrawn is kept nowhere."""
        text = check.read_text(str(self._file), WHAT)
        self._seen = hashlib.sha256(text.encode()).hexdigest()
        return text

    def _parsed(self, text: str) -> ApiKeys:
        return ApiKeys.parse(text, self._where)

    @property
    def _where(self) -> str:
        """Names the file in a message."""
        return f"{WHAT} {check.show(os.path.basename(str(self._file)))}"
