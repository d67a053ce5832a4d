"""The exceptions that are told in one sentence: what was given is wrong, or work has failed."""

from __future__ import annotations

LONGEST = 1000
"""Characters of a sentence. A damaged file may hold a word of any length, and what is wrong with it stands first."""


class InputError(ValueError):
    """Bad input: one sentence that names the file, row or key, and the value.

    The command line prints it on stderr and exits with status 2. It derives from `ValueError`, so
    code that calls the library may catch either. A sentence that would fill the screen with a value is cut short.

    Args:
        message: the sentence.

    Example:
        >>> NoiseSchedule.named("wp", steps=5)
        Traceback (most recent call last):
        diffpolicy.errors.InputError: schedule must be one of vp, linear, cosine, got 'wp'
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message if len(message) <= LONGEST else message[: LONGEST - 3] + "...")


class WorkError(RuntimeError):
    """A part of some work failed, and with it the whole: one sentence that names the part and says why.

    The command line prints it on stderr and exits with status 1.
    """
