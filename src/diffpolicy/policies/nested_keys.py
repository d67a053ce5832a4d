"""Keys of nested tensordicts: their plain form, their parts, and keys made of others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tensordict.utils import NestedKey

from diffpolicy.errors import InputError


def plain(key: Any) -> Any:
    """A nested key in its plain form: a text, or a tuple of at least two."""
    if isinstance(key, str) or key is None:
        return key
    names = tuple(key) if isinstance(key, Iterable) else (key,)
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"a key must be a string or a tuple of strings, got {key!r}")
    return names[0] if len(names) == 1 else names


def next_key(key: NestedKey) -> tuple[str, ...]:
    """The same key of the next step."""
    return ("next", *key) if isinstance(key, tuple) else ("next", key)


def beside(key: NestedKey, name: str) -> NestedKey:
    """A key in the same nested tensordict. Args: name: its last part."""
    return (*key[:-1], name) if isinstance(key, tuple) else name


def elsewhere(key: NestedKey, there: Iterable[NestedKey]) -> str:
    """`; it gives ('agents', 'reward')` where a key's last name stands under another one; empty where it does not.

    Args:
        key: that is lacking, plain. there: keys that are given.

    Example:
        >>> elsewhere("reward", [("agents", "reward"), "done"])
        "; it gives ('agents', 'reward')"
    """
    name = key[-1] if isinstance(key, tuple) else key
    found = [k for k in map(plain, there) if (k[-1] if isinstance(k, tuple) else k) == name and k != key]
    return f"; it gives {found[0]!r}" if found else ""


def as_json(key: NestedKey | None) -> str | list[str] | None:
    """A plain key as JSON holds it."""
    return list(key) if isinstance(key, tuple) else key


def group_of(key: NestedKey) -> tuple[str, ...]:
    """The names above a plain key's last one. Args: key: a text, or a tuple of texts."""
    return key[:-1] if isinstance(key, tuple) else ()


def last_of(key: NestedKey) -> str:
    """The last name of a plain key. Args: key: a text, or a tuple of texts."""
    return str(key[-1] if isinstance(key, tuple) else key)
