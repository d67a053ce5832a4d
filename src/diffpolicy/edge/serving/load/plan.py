"""What is asked of a service, and when: drawn from a mix, or read from a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._tables import Table, read_table
from diffpolicy._types import Floats
from diffpolicy.edge.workload.table_values import LONGEST_GAP_S, MOST, first_long_gap, to_number, to_whole
from diffpolicy.errors import InputError

MOST_ASKS = 1_000_000
KEYS = ("width", "height", "num_inference_steps", "weight")


@dataclass(frozen=True)
class Kind:
    """A kind of request. Args: width, height: pixels. steps: denoising steps. weight: its share, relative to others."""

    width: int
    height: int
    steps: int
    weight: float = 1.0


MIXED = (Kind(512, 512, 20, 0.15), Kind(768, 768, 20, 0.25), Kind(1024, 1024, 25, 0.45), Kind(1536, 1536, 35, 0.15))
"""vLLM-Omni's mixed workload ("Dataset C" of its performance dashboard)."""


@dataclass(frozen=True)
class Ask:
    """One request of a load.

    Args:
        at_s: when it is sent, seconds from the beginning. width, height: pixels; None: not told. steps: of denoising.
        images: how many. model: name, "" for the server's own.

    Example:
        >>> Ask(0.5, 512, 512, 20).body()["size"]
        '512x512'
    """

    at_s: float
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    images: int = 1
    model: str = ""

    def body(self) -> dict[str, Any]:
        """As OpenAI's Images API takes it."""
        body: dict[str, Any] = {"prompt": "a lighthouse", "n": self.images, "response_format": "b64_json"}
        if self.width is not None and self.height is not None:
            body["size"] = f"{self.width}x{self.height}"
        if self.steps is not None:
            body["num_inference_steps"] = self.steps
        return {**body, "model": self.model} if self.model else body


def mix_of(path: str | Path) -> tuple[Kind, ...]:
    """The kinds of a mix, in the form of vLLM-Omni's benchmark.

    Args:
        path: JSON, a list of `{"width", "height", "num_inference_steps", "weight"}`.

    Raises:
        InputError: it is no such file; names the entry and the key.

    Returns:
        The kinds, in the file's order.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("mix.json").write_text('[{"width": 512, "height": 512, "num_inference_steps": 20, "weight": 1}]')
        >>> mix_of("mix.json")
        (Kind(width=512, height=512, steps=20, weight=1.0),)
    """
    name = f"mix {Path(path).name}"
    given = check.read_json(Path(path), "mix")
    if not isinstance(given, list) or not given:
        raise InputError(f"{name} must be a list of kinds that is not empty")
    kinds = []
    for number, entry in enumerate(given):
        where = f"{name}[{number}]"
        if not isinstance(entry, dict):
            raise InputError(f"{where} must be an object, got {check.show(entry)}")
        check.known(entry, KEYS, where)
        with check.within(where):
            width, height = (check.integer(entry.get(key), key, least=1, most=MOST[key]) for key in KEYS[:2])
            steps = check.integer(entry.get(KEYS[2]), KEYS[2], least=1, most=MOST["steps"])
            weight = check.number(entry.get("weight", 1.0), "weight", least=0, most=_limits.MOST)
            kinds.append(Kind(width, height, steps, weight))
    if not sum(kind.weight for kind in kinds) > 0:
        raise InputError(f"{name} must have a weight above 0")
    return tuple(kinds)


def plan(
    requests: int, *, rate: float | None = None, cv: float = 1.0, kinds: Sequence[Kind] = MIXED, seed: int = 0
) -> list[Ask]:
    """A drawn load.

    Args:
        requests: how many. rate: a second, on average; None: all at once.
        cv: coefficient of variation of the times between arrivals, which are gamma distributed; 1: Poisson arrivals.
        kinds: the mix. seed: of the draws; the kinds do not depend on the rate.

    Returns:
        What is asked, in order of time.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> [ask.at_s for ask in plan(3)]
        [0.0, 0.0, 0.0]
    """
    requests = check.integer(requests, "requests", least=1, most=MOST_ASKS)
    kinds_of, gaps_of = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    weights: Floats = np.array([kind.weight for kind in kinds])
    drawn = kinds_of.choice(len(kinds), requests, p=weights / weights.sum())
    at: Floats = np.zeros(requests)
    if rate is not None:
        check.number(rate, "rate", least=_limits.LEAST, most=_limits.MOST)
        shape = 1 / check.number(cv, "cv", above=0, most=1e3) ** 2
        at = np.cumsum(gaps_of.gamma(shape, 1 / (shape * rate), requests))
    return [Ask(float(t), kinds[k].width, kinds[k].height, kinds[k].steps) for t, k in zip(at, drawn, strict=True)]


def read_plan(path: str | Path, most: int | None = None) -> list[Ask]:
    """A load from a trace.

    Args:
        path: CSV with `arrival_s`, and `width`, `height`, `steps`, `images` and `model` where they are known; rows may
            stand in any order, and the first arrival is the beginning. most: how many of the first to take.

    Raises:
        InputError: names the file, the line, the column and the value; no arrival is more than a year after the one
            before it, as where one is 0 among seconds since 1970.
    """
    table = read_table(path, "trace", ("arrival_s",)).complete("requests")
    times = np.array([_value(table, k, "arrival_s", to_number) for k in range(len(table.rows))])
    order = np.argsort(times, kind="stable")
    k = first_long_gap(times[order].tolist())
    if k is not None:
        at = table.header.index("arrival_s")
        (line, text), (next_line, next_text) = ((table.lines[i], table.rows[i][at]) for i in order[k : k + 2])
        before = f"the arrival before it, {check.show(text)} in line {line}"
        raise InputError(
            f"{table.name}, line {next_line}, column 'arrival_s' must be at most {LONGEST_GAP_S // 86_400} days after "
            f"{before}, got {check.show(next_text)}"
        )
    order = order[:most]
    asks = []
    for k in order.tolist():
        count = {name: _count(table, k, name) for name in ("width", "height", "steps", "images")}
        model = table.rows[k][table.header.index("model")].strip() if "model" in table.header else ""
        images = count["images"] or 1
        asks.append(
            Ask(float(times[k] - times[order[0]]), count["width"], count["height"], count["steps"], images, model)
        )
    return asks


def _value(table: Table, row: int, column: str, read: Any) -> Any:
    text = table.rows[row][table.header.index(column)]
    try:
        return read(text)
    except ValueError as error:
        raise InputError(
            f"{table.name}, line {table.lines[row]}, column '{column}' {error}, got {check.show(text)}"
        ) from None


def _count(table: Table, row: int, column: str) -> int | None:
    """A whole number of a trace, None where it is empty or there is no such column."""
    if column not in table.header or not table.rows[row][table.header.index(column)].strip():
        return None
    value: int = _value(table, row, column, to_whole)
    if not 1 <= value <= MOST[column]:
        raise InputError(
            f"{table.name}, line {table.lines[row]}, column '{column}' must be from 1 to {MOST[column]}, got {value}"
        )
    return value
