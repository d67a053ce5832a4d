"""What a server's `/health`, `/v1/models` and `/metrics` say, whoever wrote the server."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from diffpolicy.edge.serving.upstream import Answer, Health

MOST_BYTES = 4 * 2**20
"""Of any of the three."""
GAUGE = re.compile(
    r"^((?:vllm_omni:|vllm:omni_|vllm_omni_)num_requests_)(running|waiting)(?:\{.*\})?[ \t]+(\S+)", re.MULTILINE
)
"""vLLM-Omni's counts of requests, in the spellings that its releases and its design note have."""
LONGEST = 200
LONGEST_S = 1e9
"""Seconds from which on a time is none: some thirty years."""


def own_health(answer: Answer) -> Health | None:
    """What a worker of diffpolicy says of itself; None where the server is another one.

    Example:
        >>> own_health(Answer(503, {}, b'{"status": "draining", "boot": "a1"}')).draining
        True
    """
    told = as_object(answer.body)
    status, boot = told.get("status"), told.get("boot")
    if status not in ("ready", "loading", "draining") or not isinstance(boot, str):
        return None
    return Health(
        status == "ready" and answer.status == 200,
        draining=status == "draining",
        boot=boot[:LONGEST],
        models=_names(told.get("models")),
        running=_count(told.get("running")),
        waiting=_count(told.get("waiting")),
        remaining_s=_seconds(told.get("remaining_s")),
        slots=_count(told.get("slots")),
        why="says that it is loading" if status == "loading" else "",
    )


def models(answer: Answer) -> tuple[str, ...] | None:
    """The names that `/v1/models` lists; None where it lists none.

    Example:
        >>> models(Answer(200, {}, b'{"data": [{"id": "sd3-medium"}]}'))
        ('sd3-medium',)
    """
    listed = as_object(answer.body).get("data") if answer.status == 200 else None
    if not isinstance(listed, list):
        return None
    return _names([entry.get("id") if isinstance(entry, dict) else None for entry in listed])


def counts(answer: Answer) -> tuple[int | None, int | None]:
    """Requests that run and that wait, by the gauges of vLLM-Omni, summed over its engines; None where there is none.

    Example:
        >>> counts(Answer(200, {}, b'vllm_omni:num_requests_running{engine="0"} 2.0'))
        (2, None)
    """
    text = answer.body.decode("utf-8", "replace") if answer.status == 200 else ""
    sums: dict[str, dict[str, float]] = defaultdict(dict)
    for spelling, word, number in GAUGE.findall(text):
        try:
            value = float(number)
        except ValueError:
            continue
        if math.isfinite(value) and value >= 0:
            sums[word][spelling] = sums[word].get(spelling, 0.0) + value
    # a release that has two spellings counts the same requests twice
    running, waiting = (next(iter(sums[word].values()), None) for word in ("running", "waiting"))
    return (None if running is None else round(running), None if waiting is None else round(waiting))


def as_object(body: bytes) -> Mapping[str, Any]:
    """A JSON object; an empty one where the body is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def seconds(text: str | None) -> float | None:
    """Seconds as a header tells them; None where it is no such number."""
    try:
        return _seconds(float(text)) if text is not None else None
    except ValueError:
        return None


def _seconds(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < LONGEST_S else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _names(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list):
        return None
    names = tuple(name for name in value if isinstance(name, str) and name and len(name) <= LONGEST)
    return names or None
