"""What a request asks for, and the requests of one episode as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._types import Floats, Ints
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.edge.workload.table_values import MOST
from diffpolicy.errors import InputError

_COUNTS = ("width", "height", "steps", "images")
_AMOUNTS = ("gcycles_per_step", "input_mbit", "result_mbit", "weight")
_TYPE = ("model", *_COUNTS, *_AMOUNTS)
_NEEDED = tuple(name for name in _TYPE if name not in ("model", "images", "weight"))


@dataclass(frozen=True, kw_only=True)
class RequestType:
    """One kind of request in a mix.

    Args:
        model: name of the model that it needs.
        width, height: size of an image, pixels. steps: denoising steps. images: images that it asks for.
        gcycles_per_step: work of one denoising step of the whole request, in the scenario's unit of work.
        input_mbit, result_mbit: what is sent to the server and back, Mbit.
        weight: share of the mix, relative to the other types.

    Raises:
        InputError: a value is out of range.

    Example:
        >>> kind = RequestType(width=512, height=512, steps=20, gcycles_per_step=0.1, input_mbit=1.0, result_mbit=2.0)
        >>> kind.work_gcycles
        2.0
    """

    model: str = "default"
    width: int
    height: int
    steps: int
    images: int = 1
    gcycles_per_step: float
    input_mbit: float
    result_mbit: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise InputError(f"model must be a string, got {check.show(self.model)}")
        for name in _COUNTS:
            count = check.integer(getattr(self, name), name, least=1, most=MOST[name])
            object.__setattr__(self, name, count)
        for name in _AMOUNTS:
            object.__setattr__(self, name, check.number(getattr(self, name), name, least=0, most=_limits.MOST))

    @property
    def work_gcycles(self) -> float:
        """Work of the whole request, `gcycles_per_step * steps`."""
        return self.gcycles_per_step * self.steps

    @classmethod
    def from_dict(cls, data: Any, key: str) -> RequestType:
        """One entry of a workload's `mix`.

        Args:
            data: as it stands in the file. key: names it in messages.

        Raises:
            InputError: a key is unknown or missing or a value is out of range; the sentence names it.
        """
        data = check.mapping(data, key, allowed=_TYPE, required=_NEEDED)
        try:
            return cls(**data)
        except InputError as error:
            raise InputError(f"{key}.{error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The entry of a workload's `mix`."""
        return {name: getattr(self, name) for name in _TYPE}


@dataclass(frozen=True)
class Requests:
    """The first requests of one episode in order of arrival, K of them.

    Args:
        arrival_s: seconds from the start of the episode, not decreasing, `[K]`.
        station: the station that each reaches, `[K]`.
        type: index into the workload's `mix`; of a trace the row of its file, `[K]`.
        input_mbit, result_mbit: `[K]`, Mbit.
        work: computation in the scenario's unit of work, `[K]`.
        steps: denoising steps, `[K]`. images: images per request, `[K]`.
        model: index into the workload's `models`, `[K]`.
        megapixels: size of one image, width x height / 10^6, `[K]`.
        luck_normal: a standard normal number for the scatter of run times from run to run, `[K]`.
    """

    arrival_s: Floats
    station: Ints
    type: Ints
    input_mbit: Floats
    result_mbit: Floats
    work: Floats
    steps: Ints
    model: Ints
    megapixels: Floats
    images: Ints
    luck_normal: Floats

    def __len__(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True)
class TypeTable:
    """Request types as columns: what the rows of a trace or the entries of a mix have in common, M of them.

    Args:
        models: distinct names. model: index into them, `[M]`.
        steps, images: `[M]`. megapixels: of one image, `[M]`.
        input_mbit, result_mbit: Mbit, `[M]`. work: in the scenario's unit, `[M]`.
    """

    models: tuple[str, ...]
    model: Ints
    steps: Ints
    images: Ints
    megapixels: Floats
    input_mbit: Floats
    result_mbit: Floats
    work: Floats

    @classmethod
    def of(cls, mix: Sequence[RequestType]) -> TypeTable:
        """The columns of a mix."""
        models = tuple(dict.fromkeys(t.model for t in mix))
        return cls(
            models=models,
            model=np.array([models.index(t.model) for t in mix], dtype=np.int64),
            steps=np.array([t.steps for t in mix], dtype=np.int64),
            images=np.array([t.images for t in mix], dtype=np.int64),
            megapixels=np.array([t.width * t.height / 1e6 for t in mix]),
            input_mbit=np.array([t.input_mbit for t in mix]),
            result_mbit=np.array([t.result_mbit for t in mix]),
            work=np.array([t.work_gcycles for t in mix]),
        )

    def requests(self, kind: Ints, arrival_s: Floats, station: Ints, luck_normal: Floats) -> Requests:
        """Requests of the types `kind`, `[K]`, arriving at `arrival_s`, `[K]`."""
        return Requests(
            arrival_s=arrival_s,
            station=station,
            type=kind,
            input_mbit=self.input_mbit[kind],
            result_mbit=self.result_mbit[kind],
            work=self.work[kind],
            steps=self.steps[kind],
            model=self.model[kind],
            megapixels=self.megapixels[kind],
            images=self.images[kind],
            luck_normal=luck_normal,
        )


def generators(seed: int, stream: Stream, episode: int) -> list[np.random.Generator]:
    """A generator for each of: times, stations, types, luck; so that one more number of one shifts no other."""
    root = np.random.SeedSequence((seed, int(stream), episode))
    return [np.random.Generator(np.random.PCG64(child)) for child in root.spawn(4)]


def rate_factor(offered: float, load: float, capacity_gcycles_per_s: float) -> float:
    """By what the rate of a workload that offers `offered` Gcycles/s must grow to offer `load` times the capacity."""
    load = check.number(load, "load", above=0)
    capacity = check.number(capacity_gcycles_per_s, "capacity_gcycles_per_s", above=0)
    if not offered > 0:
        raise InputError("workload has no work, so its load cannot be set")
    return load * capacity / offered


def draw_types(mix: tuple[RequestType, ...], persistence: float, count: int, rng: np.random.Generator) -> Ints:
    """Types of successive requests: with chance `persistence` of the same model as before, else from the whole mix.

    Args:
        mix: the types and their weights, M of them. persistence: from 0 to below 1.
        count: how many. rng: what draws.

    Returns:
        Indices into the mix, `[count]`. Each type has its share of the mix in the long run.
    """
    model = TypeTable.of(mix).model
    weights = np.array([t.weight for t in mix])
    repeat, place = rng.uniform(size=(count, 2)).T
    fresh = _inverse(weights, place)
    # the request whose model a chain of repeats goes on with: the last one drawn from the whole mix
    fresh_at = np.where(repeat >= persistence, np.arange(count), 0)
    source = np.maximum.accumulate(fresh_at) if count else fresh_at
    kind: Ints = fresh.copy()
    repeated = source != np.arange(count)
    for m in np.unique(model):
        at = np.flatnonzero(repeated & (model[fresh[source]] == m))
        if not len(at):  # a model without weight
            continue
        kind[at] = _inverse(np.where(model == m, weights, 0.0), place[at])
    return kind


def _inverse(weights: Floats, place: Floats) -> Ints:
    """The index below whose summed share each `place` of [0, 1) falls; an index without weight is never chosen."""
    ends = np.cumsum(weights) / weights.sum()
    kind: Ints = np.minimum(np.searchsorted(ends, place, side="right"), np.flatnonzero(weights)[-1]).astype(np.int64)
    return kind
