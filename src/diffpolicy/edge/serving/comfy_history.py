"""What ComfyUI says of a request that is done, or that it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LATEST_MS = 1e15
"""A time above is none: some thirty thousand years after 1970."""


def messages(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What happened to a request, by the events' names. Args: status: of its history."""
    pairs = [x for x in _list(status.get("messages")) if _is_entry(x) and isinstance(x[1], dict)]
    return {str(name): told for name, told, *_ in pairs}


def seconds(told: Mapping[str, Mapping[str, Any]]) -> float | None:
    """How long it ran, by its own clock in milliseconds. Args: told: its messages."""
    begun, ended = (told.get(name, {}).get("timestamp") for name in ("execution_start", "execution_success"))
    known = all(isinstance(x, (int, float)) and not isinstance(x, bool) and 0 <= x < LATEST_MS for x in (begun, ended))
    return max((ended - begun) / 1000.0, 0.0) if known and begun is not None and ended is not None else None


def files(outputs: Any) -> list[dict[str, str]]:
    """The files that nodes have saved; pictures that were only shown count where nothing was saved.

    Args:
        outputs: of a history.

    Example:
        >>> files({"8": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}})
        [{'filename': 'a.png', 'subfolder': '', 'type': 'output'}]
    """
    found: list[dict[str, str]] = []
    for node in outputs.values() if isinstance(outputs, dict) else ():
        for image in _list(node.get("images")) if isinstance(node, dict) else ():
            if isinstance(image, dict) and isinstance(image.get("filename"), str):
                found.append({key: _text(image.get(key)) for key in ("filename", "subfolder", "type")})
    saved = [file for file in found if file["type"] == "output"]
    return saved or found


def reason(told: Mapping[str, Any]) -> str:
    """Why a workflow is refused: ComfyUI's error, and the nodes that it names. Args: told: its answer."""
    error = told.get("error")
    said = error.get("message") if isinstance(error, dict) else error
    wrong = told.get("node_errors")
    nodes = [
        f"{_text(node.get('class_type')) or key}: {_text(entry.get('message'))}"
        for key, node in (wrong.items() if isinstance(wrong, dict) else ())
        if isinstance(node, dict)
        for entry in _list(node.get("errors"))
        if isinstance(entry, dict)
    ]
    return "; ".join(filter(None, [str(said or ""), *nodes[:4]]))[:500] or "it does not say why"


def _list(value: Any) -> list[Any]:
    """A list; an empty one for `null`, which stands for what is not there, and for all else."""
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) > 1
