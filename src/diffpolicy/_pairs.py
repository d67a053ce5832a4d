"""Two files that belong together, data and what describes them: nobody ever reads one of each of two savings.

Two renames are not one, so the description names the SHA-256 of its data, and is laid beside as pending before the data
are renamed. A saver that is killed leaves the old data with the old description, or the new data with a pending
description that names them: either way a whole pair, which `read` gives and the next `write` tidies up.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpolicy import _files
from diffpolicy import _validate as check
from diffpolicy._lock import Lock, acquire
from diffpolicy._read import read_bytes, show_path
from diffpolicy.errors import InputError

LARGEST = 4 * 2**30
"""Bytes of data that are read."""
PATIENCE_S = 60.0
"""For how long a writer waits until another one has left the folder."""
PAUSES_S = (0.0, 0.01, 0.03, 0.1, 0.3)
"""Before each try of a reader, who may meet a writer between its two renames."""


@dataclass(frozen=True)
class Content:
    """What stands in a pair of files.

    Args:
        description: the JSON object. data: the bytes of the other file.
        whole: whether they belong together, as far as the description tells; one without a digest tells nothing.
    """

    description: dict[str, Any]
    data: bytes
    whole: bool


@dataclass(frozen=True)
class Pair:
    """Data and the JSON file that describes them, in one folder.

    Args:
        data: path of the data. text: of the description.
        key: of the description, whose value is the SHA-256 of the data.
        what: how refusals call the files, e.g. `policy file`.
    """

    data: Path
    text: Path
    key: str
    what: str

    @property
    def pending(self) -> Path:
        """Where a description waits until its data are there."""
        return self.text.with_name(f".{self.text.name}.next")

    def write(self, description: dict[str, Any], data: bytes) -> None:
        """Writes both files, as one: whoever is killed here leaves the old pair or the new one.

        Args:
            description: without the digest, which is added. data: what it describes.

        Raises:
            InputError: the folder cannot be written to, or another process does not leave it.
        """
        text = json.dumps({**description, self.key: hashlib.sha256(data).hexdigest()}, indent=1) + "\n"
        try:
            with _alone(self.data.parent):
                self._tidy()
                _files.write_text(self.pending, text)
                _files.write(self.data, lambda aside: aside.write_bytes(data))
                self.pending.replace(self.text)
        except OSError as error:
            raise InputError(f"cannot write {self.text}: {error.strerror or error}") from None

    def _tidy(self) -> None:
        """Ends what a killed writer began: its whole pair is kept. Its half-written files go with `_files.write`."""
        waiting = self._described(self.pending)
        if waiting is not None:
            whole = self.data.is_file() and self._names(waiting, self.data.read_bytes())
            self.pending.replace(self.text) if whole else self.pending.unlink(missing_ok=True)

    def read(self) -> Content:
        """Both files.

        Raises:
            InputError: one is missing or cannot be read.
        """
        result = None
        for pause in PAUSES_S:
            time.sleep(pause)
            result = self._read()
            if result.whole:
                break
        assert result is not None
        return result

    def _read(self) -> Content:
        # the data first: a description that is read after them is theirs or a later one, never an earlier
        if not self.data.exists() and not self.text.exists():
            check.read_json(self.text, self.what)
        data = read_bytes(self.data, self.what, LARGEST)
        waiting = self._described(self.pending)
        if waiting is not None and self._names(waiting, data):
            return Content(waiting, data, whole=True)
        description = check.read_json(self.text, self.what)
        if not isinstance(description, dict):
            raise InputError(f"{self.what} {show_path(self.text)} must hold an object, got {check.show(description)}")
        whole = self.key not in description or self._names(description, data)
        return Content(description, data, whole=whole)

    def _described(self, path: Path) -> dict[str, Any] | None:
        try:
            found = check.read_json(path, self.what)
        except InputError:
            return None
        return found if isinstance(found, dict) else None

    def _names(self, description: dict[str, Any], data: bytes) -> bool:
        return bool(description.get(self.key) == hashlib.sha256(data).hexdigest())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While it lasts, no other writer of pairs is in the folder, as far as the file system has locks."""
    if os.name == "nt":  # where a folder cannot be opened
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if acquire(handle, PATIENCE_S, 0.01) is Lock.OTHERS:
            raise InputError(f"cannot write to {folder}: another process has been writing there for {PATIENCE_S:g} s")
        yield
    finally:
        os.close(handle)
