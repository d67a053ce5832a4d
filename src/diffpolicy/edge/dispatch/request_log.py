"""`RequestLog`: what a service did, request by request, from a CSV."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._types import Bools, Floats, Ints
from diffpolicy.edge.dispatch.log_columns import LogColumns
from diffpolicy.edge.workload.table_values import MOST, to_whole
from diffpolicy.errors import InputError

SIZES = ("width", "height", "steps", "images")
DONE = ("", "ok", "200", "done", "success")
"""What stands in the column `status` of a request that was answered."""


@dataclass(frozen=True, eq=False)
class RequestLog:
    r"""K requests that were answered, in order of arrival, on S servers.

    The file has the columns `arrival_s`, `server` and `end_s`, and `start_s` where it is known; what a request asks for
    stands in `model`, `width`, `height`, `steps` and `images`, or in `cost`; where cells are empty it has the mean size
    of its model. Rows without an end, or of a `status` that is not one of `DONE`, are left out and counted.

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
        request: of which request each is a part, in order of arrival from 0, int64 `[K]`: rows of one arrival that name
            one `request`, such as its images where they are sent one by one. Without that column each is one.
        out_of_order: of rows that arrive before the row above, where those are few; otherwise empty.
        repeated: rows whose cells are all those of a row before; each counts as a request.

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
    request: Ints
    out_of_order: str = ""
    repeated: int = 0

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

    @property
    def request_delay_s(self) -> Floats:
        """The same of whole requests, which end with their last part, in order of arrival."""
        result: Floats = np.zeros(int(self.request[-1]) + 1)
        np.maximum.at(result, self.request, self.delay_s)
        return result

    @classmethod
    def read(cls, path: str | Path, *, columns: Mapping[str, str] | None = None, unit: str = "s") -> RequestLog:
        """A log's requests.

        Args:
            path: CSV, see above; rows may stand in any order.
            columns: names in the file where they are others, such as `{"arrival_s": "created_at"}`.
            unit: of the times, `s`, `ms`, `us` or `ns`; a column `arrival_ms` says it itself, and dates such as
                `2026-01-31T12:00:00.250Z` are known as such.

        Raises:
            InputError: names the file, the line, the column and the value.
        """
        table = LogColumns.read(path, columns or {}, unit)
        keep, left_out = _answered(table)
        rows = np.flatnonzero(keep)
        if not len(rows):
            raise InputError(f"{table.table.name} has no request that was answered")
        times = table.seconds(rows)
        arrival, end = times["arrival_s"], times["end_s"]
        for k in np.flatnonzero(end < arrival)[:1]:
            said = table.texts("arrival_s", rows[k : k + 1])[0]
            raise table.error(int(rows[k]), "end_s", f"must not be below arrival_s ({check.show(said)[1:-1]})")
        names = table.texts("server", rows)
        for k in (k for k, name in enumerate(names) if not name):
            raise table.error(int(rows[k]), "server", "must name a server")
        servers = tuple(dict.fromkeys(sorted(names)))
        server = np.array([servers.index(name) for name in names], np.int64)
        started = table.has("start_s")
        start = times["start_s"] if started else _starts(arrival, end, server)
        for k in np.flatnonzero((start < arrival) | (start > end))[:1]:
            raise table.error(int(rows[k]), "start_s", "must lie between arrival_s and end_s")
        named = table.texts("model", rows) if table.has("model") else []
        models = tuple(dict.fromkeys(named)) or ("",)
        model = np.array([models.index(x) for x in named], np.int64) if named else np.zeros(len(rows), np.int64)
        size, alike = _sizes(table, rows, model)
        _, kind = np.unique(np.stack([*alike, model.astype(np.float64)], -1), axis=0, return_inverse=True)
        order = np.argsort(arrival, kind="stable")
        return cls(
            table.table.name,
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
            _requests(table, rows[order], arrival[order]),
            table.out_of_order(rows, arrival),
            len(rows) - len({table.table.rows[k] for k in rows}),
        )


def _answered(table: LogColumns) -> tuple[Bools, dict[str, int]]:
    """Which rows are of requests that were answered, and how many are not, by why."""
    ended = np.array([bool(text) for text in table.texts("end_s")])
    right = np.ones_like(ended)
    if table.has("status"):
        right = np.array([text.lower() in DONE for text in table.texts("status")])
    counts = {"without an end": int((~ended).sum()), "of another status": int((ended & ~right).sum())}
    return ended & right, {why: count for why, count in counts.items() if count}


def _requests(table: LogColumns, rows: Ints, arrival_s: Floats) -> Ints:
    """Of which request each row is a part, in order of arrival; a name that comes again later is another one's."""
    if not table.has("request"):
        return np.arange(len(rows))
    known: dict[object, int] = {}
    named = zip(table.texts("request", rows), arrival_s.tolist(), strict=True)
    keys = [(name, arrived_s) if name else row for row, (name, arrived_s) in enumerate(named)]
    return np.array([known.setdefault(key, len(known)) for key in keys], np.int64)


def _sizes(table: LogColumns, rows: Ints, model: Ints) -> tuple[Floats, list[Floats]]:
    """What each request asks for as one number, and the columns by which requests are alike.

    A request that does not tell its size, as one of a prompt alone, has the mean size of its model.
    """
    if table.has("cost"):
        cost = table.numbers("cost", rows, least=0.0)
        return cost, [cost]
    size: Floats = np.ones(len(rows))
    told = np.ones(len(rows), dtype=bool)
    columns: list[Floats] = []
    for name in (name for name in SIZES if table.has(name)):
        values = _counts(table, name, rows)
        if name != "images":
            told &= values > 0
        size = size * (values / 1e3 if name in ("width", "height") else np.maximum(values, 1))
        columns.append(values)
    for number in np.unique(model[~told]):
        alike = told & (model == number) if (told & (model == number)).any() else told
        size[~told & (model == number)] = size[alike].mean() if alike.any() else 1.0
    return size, columns


def _counts(table: LogColumns, name: str, rows: Ints) -> Floats:
    """A column of whole numbers; 0 where it is empty."""
    values = np.zeros(len(rows))
    for place, text in enumerate(table.texts(name, rows)):
        if not text:
            continue
        try:
            value = to_whole(text)
        except ValueError as error:
            raise table.error(int(rows[place]), name, str(error)) from None
        if not 1 <= value <= MOST[name]:
            raise table.error(int(rows[place]), name, f"must be from 1 to {MOST[name]}")
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
