"""The one exception that means "what you gave me is wrong"."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: one sentence that names the file, row or key, and the value.

    The command line prints it on stderr and exits with status 2. It derives from `ValueError`, so
    code that calls the library may catch either.
    """
