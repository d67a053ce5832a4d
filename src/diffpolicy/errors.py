"""The exceptions that are told in one sentence: what was given is wrong, or work has failed."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: one sentence that names the file, row or key, and the value.

    The command line prints it on stderr and exits with status 2. It derives from `ValueError`, so
    code that calls the library may catch either.
    """


class WorkError(RuntimeError):
    """A part of some work failed, and with it the whole: one sentence that names the part and says why.

    The command line prints it on stderr and exits with status 1.
    """
