"""`RequestLog`: what a service did, request by request, from a CSV."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._tables import Table, read_table
from diffpolicy._types import Bools, Floats, Ints
from diffpolicy.edge.workload.table_values import MOST, to_number, to_whole
from diffpolicy.errors import InputError

SIZES = ("width", "height", "steps", "images")
DONE = ("", "ok", "200", "done", "success")
"""What stands in the column `status` of a request that was answered."""


@dataclass(frozen=True, eq=False)
class RequestLog:
    r"""K requests that were answered, in order of arrival, on S servers.

    The file has the columns `arrival_s`, `server` and `end_s`, and `start_s` where it is known; what a request asks for
    stands in `model`, `width`, `height`, `steps` and `images`, or in `cost`; where cells are empty it has the mean size
    of its model. Rows without an end, or of another `status` than `ok`, are left out and counted.

    Args:
        name: of the file.
        arrival_s, start_s, end_s: seconds, `[K]`; without a column `start_s` a request began at the later of its
            arrival and the end of the one before it on its server.
        server: number of its server, int64 `[K]`. servers: their names, `[S]`.
        kind: like requests have like numbers, int64 `[K]`. model: number of its model, int64 `[K]`.
        size: what it asks for: images x steps x megapixels, or its cost, `[K]`.
        models: names.
        left_out: rows that were not answered, by why.
        started: whether the file tells when requests began.

    Raises:
        InputError: on reading, a column lacks, or a value is wrong; names line, column and value.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("log.csv").write_text("arrival_s,server,end_s,cost\n0,a,4,4\n1,a,6,2\n1,b,3,2\n")
        >>> log = RequestLog.read("log.csv")
        >>> log.servers, log.service_s.tolist()
        (('a', 'b'), [4.0, 2.0, 2.0])
    """

    name: str
    arrival_s: Floats
    start_s: Floats
    end_s: Floats
    server: Ints
    servers: tuple[str, ...]
    kind: Ints
    model: Ints
    size: Floats
    models: tuple[str, ...]
    left_out: Mapping[str, int]
    started: bool

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def service_s(self) -> Floats:
        """How long each kept its server busy, seconds `[K]`."""
        return self.end_s - self.start_s

    @property
    def seats(self) -> list[int]:
        """How many requests each server worked on at once, `[S]`; 1 where nobody knows when they began.

        What overlaps by less than a twentieth of the mean service is taken for an error of clocks, and so is a number
        that less than one in a hundred requests met.
        """
        if not self.started:
            return [1] * len(self.servers)
        slack, found = 0.05 * float(self.service_s.mean()), []
        for j in range(len(self.servers)):
            start, end = self.start_s[self.server == j], self.end_s[self.server == j] - slack
            order = np.sort(start), np.sort(end)
            at_once = np.arange(1, len(start) + 1) - np.searchsorted(order[1], order[0], side="right")
            found.append(max(int(np.percentile(at_once, 99, method="lower")), 1))
        return found

    def with_seats(self, seats: Sequence[int]) -> RequestLog:
        """The same log of servers that worked on so many requests at once, where it does not tell when each began.

        Args:
            seats: of each server, `[S]`.
        """
        if self.started:
            return self
        return replace(self, start_s=_starts(self.arrival_s, self.end_s, self.server, seats))

    @property
    def delay_s(self) -> Floats:
        """From arrival to end, seconds `[K]`."""
        return self.end_s - self.arrival_s

    @classmethod
    def read(cls, path: str | Path) -> RequestLog:
        """A log's requests.

        Args:
            path: CSV, see above; rows may stand in any order.

        Raises:
            InputError: names the file, the line, the column and the value.
        """
        table = read_table(path, "log", ("arrival_s", "server", "end_s", ("cost", "steps"))).complete("requests")
        keep, left_out = _answered(table)
        rows = np.flatnonzero(keep)
        if not len(rows):
            raise InputError(f"{table.name} has no request that was answered")
        arrival, end = _numbers(table, "arrival_s", rows), _numbers(table, "end_s", rows)
        for k in np.flatnonzero(end < arrival)[:1]:
            raise _error(table, int(rows[k]), "end_s", f"must not be below arrival_s ({arrival[k]:g})")
        names = [table.rows[k][table.header.index("server")].strip() for k in rows]
        for k in (k for k, name in enumerate(names) if not name):
            raise _error(table, int(rows[k]), "server", "must name a server")
        servers = tuple(dict.fromkeys(sorted(names)))
        server = np.array([servers.index(name) for name in names], np.int64)
        started = "start_s" in table.header
        start = _numbers(table, "start_s", rows) if started else _starts(arrival, end, server)
        for k in np.flatnonzero((start < arrival) | (start > end))[:1]:
            raise _error(table, int(rows[k]), "start_s", "must lie between arrival_s and end_s")
        named = [table.rows[k][table.header.index("model")].strip() for k in rows] if "model" in table.header else []
        models = tuple(dict.fromkeys(named)) or ("",)
        model = np.array([models.index(x) for x in named], np.int64) if named else np.zeros(len(rows), np.int64)
        size, columns = _sizes(table, rows, model)
        _, kind = np.unique(np.stack([*columns, model.astype(np.float64)], -1), axis=0, return_inverse=True)
        order = np.argsort(arrival, kind="stable")
        return cls(
            table.name,
            arrival[order],
            start[order],
            end[order],
            server[order],
            servers,
            kind.reshape(-1)[order],
            model[order],
            size[order],
            models,
            left_out,
            started,
        )


def _error(table: Table, row: int, column: str, what: str) -> InputError:
    """A sentence about a value."""
    value = table.rows[row][table.header.index(column)]
    return InputError(f"{table.name}, line {table.lines[row]}, column '{column}' {what}, got {check.show(value)}")


def _answered(table: Table) -> tuple[Bools, dict[str, int]]:
    """Which rows are of requests that were answered, and how many are not, by why."""
    end = table.header.index("end_s")
    status = table.header.index("status") if "status" in table.header else None
    ended = np.array([bool(row[end].strip()) for row in table.rows])
    right = np.array([status is None or row[status].strip().lower() in DONE for row in table.rows])
    counts = {"without an end": int((~ended).sum()), "of another status": int((ended & ~right).sum())}
    return ended & right, {why: count for why, count in counts.items() if count}


def _numbers(table: Table, column: str, rows: Ints, *, least: float = -np.inf) -> Floats:
    """A column of finite numbers."""
    at, values = table.header.index(column), np.empty(len(rows))
    for place, k in enumerate(rows):
        try:
            values[place] = to_number(table.rows[k][at])
        except ValueError as error:
            raise _error(table, int(k), column, str(error)) from None
        if values[place] < least:
            raise _error(table, int(k), column, f"must be at least {least:g}")
    return values


def _sizes(table: Table, rows: Ints, model: Ints) -> tuple[Floats, list[Floats]]:
    """What each request asks for as one number, and the columns by which requests are alike.

    A request that does not tell its size, as one of a prompt alone, has the mean size of its model.
    """
    if "cost" in table.header:
        cost = _numbers(table, "cost", rows, least=0.0)
        return cost, [cost]
    size: Floats = np.ones(len(rows))
    told = np.ones(len(rows), dtype=bool)
    columns: list[Floats] = []
    for name in (name for name in SIZES if name in table.header):
        values = _counts(table, name, rows)
        if name != "images":
            told &= values > 0
        size = size * (values / 1e3 if name in ("width", "height") else np.maximum(values, 1))
        columns.append(values)
    for number in np.unique(model[~told]):
        alike = told & (model == number) if (told & (model == number)).any() else told
        size[~told & (model == number)] = size[alike].mean() if alike.any() else 1.0
    return size, columns


def _counts(table: Table, name: str, rows: Ints) -> Floats:
    """A column of whole numbers; 0 where it is empty."""
    at, values = table.header.index(name), np.zeros(len(rows))
    for place, k in enumerate(rows):
        if not table.rows[k][at].strip():
            continue
        try:
            value = to_whole(table.rows[k][at])
        except ValueError as error:
            raise _error(table, int(k), name, str(error)) from None
        if not 1 <= value <= MOST[name]:
            raise _error(table, int(k), name, f"must be from 1 to {MOST[name]}")
        values[place] = value
    return values


def _starts(arrival: Floats, end: Floats, server: Ints, seats: Sequence[int] = ()) -> Floats:
    """When each began: at the later of its arrival and the end of the one that ended before it on its server.

    With several seats a request waits, in order of arrival, for the seat that is free first. Args: seats: 1 by default.
    """
    start: Floats = arrival.copy()
    for j in np.unique(server):
        rows, count = np.flatnonzero(server == j), seats[j] if len(seats) else 1
        if count > 1:
            taken = [-np.inf] * count
            for k in rows[np.argsort(arrival[rows], kind="stable")]:
                start[k] = min(max(arrival[k], heapq.heappop(taken)), end[k])
                heapq.heappush(taken, end[k])
            continue
        rows = rows[np.argsort(end[rows], kind="stable")]
        start[rows[1:]] = np.maximum(arrival[rows[1:]], end[rows[:-1]])
    return start
