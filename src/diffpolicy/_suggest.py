"""What somebody may have meant by a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def meant(word: object, names: Iterable[str]) -> str:
    """`; did you mean NAME?` at the end of a sentence; empty where no name is near.

    Args:
        word: what was typed; what is no text is near to none. names: that there are.

    Example:
        >>> meant("otp-ts", ["opt-ts", "random"])
        '; did you mean opt-ts?'
    """
    if not isinstance(word, str):
        return ""
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower()[:100], lower, n=1, cutoff=0.65)
    return f"; did you mean {lower[near[0]]}?" if near else ""
