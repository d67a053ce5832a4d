"""`TraceWorkload`: single requests in continuous time, cut from a recorded trace."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._read import show_path
from diffpolicy._types import Floats, Ints
from diffpolicy.edge.workload.mix import Requests, TypeTable, generators, rate_factor
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.edge.workload.table_values import MOST
from diffpolicy.edge.workload.task_file import NO_ORIGIN, TaskTable
from diffpolicy.errors import InputError

_NEEDED = ("arrival_s", "input_mbit", "result_mbit", "gcycles_per_step", "steps")


@dataclass(frozen=True)
class TraceWorkload:
    r"""Requests of a recorded trace: each episode is a window of it, and no request serves both streams.

    Training episodes are windows of the first `train_share` of the rows, evaluation episodes of the rest. Two
    workloads are equal if their files are, wherever these lie.

    Args:
        file: a task file (CSV) with `arrival_s`; an absolute path, or one from `folder`.
        train_share: share of the rows that training may see, above 0 and below 1.
        rate_per_s: mean number of requests in a second to which times are stretched; None: as recorded.
        folder: where the scenario file lies; not part of the file.

    Raises:
        InputError: a value is out of range, or the file is not a task file; the sentence names line and column.

    Example:
        >>> from pathlib import Path
        >>> rows = "".join(f"{second},2.0,1.0,0.5,10\n" for second in range(11))
        >>> _ = Path("trace.csv").write_text("arrival_s,input_mbit,result_mbit,gcycles_per_step,steps\n" + rows)
        >>> workload = TraceWorkload("trace.csv", train_share=0.6)
        >>> workload.recorded_rate_per_s, workload.mean_work_gcycles_per_s()
        (1.0, 5.0)
        >>> workload.draw(seed=0, stream=Stream.EVALUATION, episode=0, count=3, stations=2).arrival_s.tolist()
        [1.0, 2.0, 3.0]
    """

    file: str
    train_share: float = 0.8
    rate_per_s: float | None = None
    folder: Path = field(default=Path(), compare=False, repr=False)
    kind: str = field(default="trace", init=False)
    sha256: str = field(init=False, repr=False)
    """Of the file's bytes."""
    _table: TypeTable = field(init=False, repr=False, compare=False)
    _arrival_s: Floats = field(init=False, repr=False, compare=False)
    _origin: Ints = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not self.file:
            raise InputError(f"workload.file must be a path, got {check.show(self.file)}")
        share = check.number(self.train_share, "workload.train_share", above=0)
        if share >= 1:
            raise InputError(f"workload.train_share must be below 1, got {check.show(self.train_share)}")
        object.__setattr__(self, "train_share", share)
        if self.rate_per_s is not None:
            object.__setattr__(
                self,
                "rate_per_s",
                check.number(self.rate_per_s, "workload.rate_per_s", above=0, least=_limits.LEAST, most=_limits.MOST),
            )
        try:
            tasks = read_trace_tasks(self.path)
        except InputError as error:
            raise InputError(f"workload.file: {error}") from None
        object.__setattr__(self, "sha256", tasks.sha256)
        object.__setattr__(self, "_table", tasks.table)
        object.__setattr__(self, "_arrival_s", tasks.arrival_s)
        object.__setattr__(self, "_origin", tasks.origin)

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return Path(self.folder) / self.file

    def __len__(self) -> int:
        return len(self._arrival_s)

    @property
    def models(self) -> tuple[str, ...]:
        """The distinct models of the file, in the order in which they first occur."""
        return self._table.models

    @property
    def recorded_rate_per_s(self) -> float:
        """Mean number of requests in a second of the file as it stands."""
        return (len(self) - 1) / float(self._arrival_s[-1] - self._arrival_s[0])

    @property
    def mean_rate_per_s(self) -> float:
        """Mean number of requests in a second, as recorded unless times are stretched."""
        return self.rate_per_s or self.recorded_rate_per_s

    def mean_work_gcycles_per_s(self) -> float:
        """Work that arrives in a second in the mean over the whole file and all stations."""
        return float(self.mean_rate_per_s * self._table.work.mean())

    def with_load(self, load: float, capacity_gcycles_per_s: float) -> TraceWorkload:
        """The same requests with times stretched so that they offer `load` times the capacity.

        Args:
            load: above 0. capacity_gcycles_per_s: of the whole fleet.

        Raises:
            InputError: a number is out of range, or the trace has no work.
        """
        factor = rate_factor(self.mean_work_gcycles_per_s(), load, capacity_gcycles_per_s)
        return replace(self, rate_per_s=self.mean_rate_per_s * factor)

    def draw(self, seed: int, stream: Stream, episode: int, count: int, stations: int) -> Requests:
        """A window of the trace: a function of its arguments alone.

        An episode begins at the arrival before the window's first request. A station that the file names is kept;
        an empty one is drawn uniformly.

        Args:
            seed: at least 0. stream: evaluation or training. episode: number of the episode, k >= 0.
            count: how many requests, K. stations: number of stations, B.

        Returns:
            The requests in order of arrival, as columns `[K]`.

        Raises:
            InputError: the stream has fewer than `count` requests, or the file names a station that there is not.
        """
        cut = round(self.train_share * len(self))
        first, last = (0, cut) if stream is Stream.TRAINING else (cut, len(self))
        if last - first < count:
            what = "training" if stream is Stream.TRAINING else "evaluation"
            raise InputError(
                f"workload.file {show_path(self.path)} has {last - first} requests for {what}, an episode needs {count}"
            )
        if self._origin.max(initial=-1) >= stations:
            raise InputError(
                f"workload.file {show_path(self.path)} names the origin {self._origin.max()}, but there are {stations} "
                "stations"
            )
        when, where, _, luck = generators(seed, stream, episode)
        row = first + int(when.integers(last - first - count + 1)) + np.arange(count)
        begin_s = self._arrival_s[max(int(row[0]) - 1, 0)] if count else 0.0
        stretch = 1.0 if self.rate_per_s is None else self.recorded_rate_per_s / self.rate_per_s
        drawn = where.integers(stations, size=count)
        return self._table.requests(
            row,
            (self._arrival_s[row] - begin_s) * stretch,
            np.where(self._origin[row] < 0, drawn, self._origin[row]),
            luck.standard_normal(count),
        )

    @classmethod
    def from_dict(cls, data: Any, folder: str | Path = ".") -> TraceWorkload:
        """The `workload` object of a scenario file.

        Args:
            data: as it stands in the file. folder: where that file lies.

        Raises:
            InputError: a key is unknown or missing or a value is out of range; the sentence names it.
        """
        data = check.mapping(
            data, "workload", allowed=("kind", "file", "train_share", "rate_per_s"), required=("kind", "file")
        )
        if data.pop("kind") != "trace":
            raise InputError("workload.kind must be 'trace'")
        return cls(**data, folder=Path(folder))

    def to_dict(self) -> dict[str, Any]:
        """The `workload` object of a scenario file, with `file` as it was given."""
        rate = {} if self.rate_per_s is None else {"rate_per_s": self.rate_per_s}
        return {"kind": "trace", "file": self.file, "train_share": self.train_share, **rate}


@dataclass(frozen=True)
class TraceTasks:
    """A task file without a scenario, K rows.

    Args:
        table: what each row asks for; where a column lacks, the model is `default`, 1024 x 1024, one image.
        arrival_s: `[K]`. origin: -1 where the file names none, `[K]`.
        sha256: of the file's bytes.
    """

    table: TypeTable
    arrival_s: Floats
    origin: Ints
    sha256: str


def read_trace_tasks(path: Path) -> TraceTasks:
    """Reads a task file without a scenario.

    Raises:
        InputError: names the file, the line, the column and the value; where the header is not that of a task file it
            quotes nothing of it, since a scenario may name any file.
    """
    table = TaskTable.read(path, _NEEDED)
    arrival_s = table.arrivals()
    if not arrival_s[-1] > arrival_s[0]:
        raise InputError(f"{table.name} must span some time, but all its arrival_s are {float(arrival_s[0])!r}")
    rows = len(table.rows)

    def whole(name: str, default: int) -> Ints:
        if name not in table.header:
            return np.full(rows, default, dtype=np.int64)
        return table.ints(name, least=1, most=MOST[name])

    steps = whole("steps", 1)
    if "model" in table.header:
        at = table.header.index("model")
        names = [row[at].strip() or "default" for row in table.rows]
    else:
        names = ["default"] * rows
    models = tuple(dict.fromkeys(names))
    index = {name: i for i, name in enumerate(models)}
    with np.errstate(over="ignore"):
        work = table.floats("gcycles_per_step", least=0) * steps
    for k in np.flatnonzero(~np.isfinite(work)):
        raise table.error(int(k), "gcycles_per_step", "times steps must be finite")
    columns = TypeTable(
        models=models,
        model=np.array([index[name] for name in names], dtype=np.int64),
        steps=steps,
        images=whole("images", 1),
        megapixels=whole("width", 1024) * whole("height", 1024) / 1e6,
        input_mbit=table.floats("input_mbit", least=0),
        result_mbit=table.floats("result_mbit", least=0),
        work=work,
    )
    origin = table.ints("origin", least=0, empty=NO_ORIGIN) if "origin" in table.header else np.full(rows, NO_ORIGIN)
    return TraceTasks(columns, arrival_s, origin, table.sha256)
