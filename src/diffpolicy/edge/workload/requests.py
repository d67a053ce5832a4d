"""`RequestWorkload`: single requests in continuous time, drawn from a law of arrivals and a mix of types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._types import Floats, Ints
from diffpolicy.edge.workload.laws import ArrivalLaw, Daily, Gamma, OnOff, Poisson, arrival_times
from diffpolicy.edge.workload.mix import Requests, RequestType, TypeTable, draw_types, generators, rate_factor
from diffpolicy.edge.workload.recorded import TraceWorkload
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.errors import InputError

__all__ = ["REQUEST_KINDS", "RequestType", "RequestWorkload", "Requests", "TraceWorkload"]

_PARAMETERS: dict[str, tuple[str, ...]] = {
    "poisson": (),
    "gamma": ("cv",),
    "on-off": ("on_s", "off_s"),
    "daily": ("period_s", "amplitude", "hourly_weights"),
}
_NEEDED: dict[str, tuple[str, ...]] = {"poisson": (), "gamma": ("cv",), "on-off": ("on_s", "off_s"), "daily": ()}
_LAWS: dict[str, type[Any]] = {"poisson": Poisson, "gamma": Gamma, "on-off": OnOff, "daily": Daily}
REQUEST_KINDS = tuple(_PARAMETERS)
_ALL = tuple(name for names in _PARAMETERS.values() for name in names)


@dataclass(frozen=True)
class RequestWorkload:
    """Requests that arrive one by one at stations, each drawn from a mix of types.

    Args:
        kind: `poisson`, `gamma`, `on-off` or `daily`.
        rate_per_s: mean number of requests in a second over all stations, > 0.
        mix: the types and their weights.
        cv: of the kind `gamma`. on_s, off_s: of the kind `on-off`.
        period_s, amplitude, hourly_weights: of the kind `daily`; an episode begins at a random time of the day.
        model_persistence: chance that a request needs the same model as the one before, from 0 to below 1; its type
            is then drawn among those of that model, and otherwise from the whole mix.

    Raises:
        InputError: a value is out of range, or a parameter does not apply to the kind.

    Example:
        >>> kind = RequestType(width=512, height=512, steps=20, gcycles_per_step=0.1, input_mbit=1.0, result_mbit=2.0)
        >>> workload = RequestWorkload("gamma", 4.0, (kind,), cv=2.0)
        >>> requests = workload.draw(seed=0, stream=Stream.EVALUATION, episode=0, count=5, stations=3)
        >>> len(requests), workload.mean_work_gcycles_per_s()
        (5, 8.0)
    """

    kind: str
    rate_per_s: float
    mix: tuple[RequestType, ...]
    cv: float | None = None
    on_s: float | None = None
    off_s: float | None = None
    period_s: float | None = None
    amplitude: float | None = None
    hourly_weights: tuple[float, ...] | None = None
    model_persistence: float = 0.0
    law: ArrivalLaw = field(init=False, repr=False, compare=False)
    _table: TypeTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check.choice(self.kind, "workload.kind", REQUEST_KINDS)
        given = {name: getattr(self, name) for name in _ALL if getattr(self, name) is not None}
        for name in given:
            if name not in _PARAMETERS[self.kind]:
                raise InputError(f"workload.{name} does not apply to the kind '{self.kind}'")
        for name in _NEEDED[self.kind]:
            if name not in given:
                raise InputError(f"workload of kind '{self.kind}' lacks the key '{name}'")
        try:
            law = _LAWS[self.kind](**given)
        except InputError as error:
            raise InputError(f"workload.{error}") from None
        for name in _PARAMETERS[self.kind]:
            object.__setattr__(self, name, getattr(law, name))
        object.__setattr__(self, "law", law)
        object.__setattr__(
            self,
            "rate_per_s",
            check.number(self.rate_per_s, "workload.rate_per_s", above=0, least=_limits.LEAST, most=_limits.MOST),
        )
        persistence = check.number(self.model_persistence, "workload.model_persistence", least=0)
        if persistence >= 1:
            raise InputError(f"workload.model_persistence must be below 1, got {check.show(self.model_persistence)}")
        object.__setattr__(self, "model_persistence", persistence)
        mix = tuple(check.sequence(self.mix, "workload.mix"))
        if not sum(t.weight for t in mix) > 0:
            raise InputError("workload.mix must hold at least one type with a weight above 0")
        object.__setattr__(self, "mix", mix)
        object.__setattr__(self, "_table", TypeTable.of(mix))

    @property
    def mean_rate_per_s(self) -> float:
        """Mean number of requests in a second over all stations."""
        return self.rate_per_s

    @property
    def models(self) -> tuple[str, ...]:
        """The distinct models of the mix, in its order."""
        return self._table.models

    @property
    def _shares(self) -> Floats:
        weights: Floats = np.array([t.weight for t in self.mix])
        shares: Floats = weights / weights.sum()
        return shares

    def mean_work_gcycles_per_s(self) -> float:
        """Work that arrives in a second in the mean over all stations."""
        return float(self.rate_per_s * (self._shares @ self._table.work))

    def with_load(self, load: float, capacity_gcycles_per_s: float) -> RequestWorkload:
        """The same mix at the rate that offers `load` times the capacity.

        Args:
            load: above 0. capacity_gcycles_per_s: of the whole fleet.

        Raises:
            InputError: a number is out of range, or the mix has no work.
        """
        return replace(
            self, rate_per_s=self.rate_per_s * rate_factor(self.mean_work_gcycles_per_s(), load, capacity_gcycles_per_s)
        )

    def draw(self, seed: int, stream: Stream, episode: int, count: int, stations: int) -> Requests:
        """The first requests of one episode: a function of its arguments alone, on any machine.

        A greater `count` continues the same episode: its requests begin with those of a smaller one.

        Args:
            seed: at least 0. stream: evaluation or training. episode: number of the episode, k >= 0.
            count: how many requests, K. stations: number of stations, B; each request reaches a uniform one.

        Returns:
            The requests in order of arrival, as columns `[K]`.
        """
        when, where, what, luck = generators(seed, stream, episode)
        start_s = when.spawn(1)[0].uniform(0, self.law.period_s) if isinstance(self.law, Daily) else 0.0
        return self._table.requests(
            self.draw_types(count, what),
            arrival_times(self.law, self.rate_per_s, count, when, start_s),
            where.integers(stations, size=count),
            luck.standard_normal(count),
        )

    def draw_types(self, count: int, rng: np.random.Generator) -> Ints:
        """Types in the order of arrival; models repeat with `model_persistence`.

        Args:
            count: how many, K. rng: draws them.

        Returns:
            Indices into the mix, `[K]`.
        """
        return draw_types(self.mix, self.model_persistence, count, rng)

    @classmethod
    def from_dict(cls, data: Any) -> RequestWorkload:
        """The `workload` object of a scenario file.

        Args:
            data: as it stands in the file.

        Raises:
            InputError: a key is unknown or missing or a value is out of range; the sentence names it.
        """
        kind = data.get("kind") if isinstance(data, Mapping) else None
        own = _PARAMETERS.get(kind, _ALL) if isinstance(kind, str) else _ALL
        keys = ("kind", "rate_per_s", "mix", *own, "model_persistence")
        data = check.mapping(data, "workload", allowed=keys, required=("kind", "rate_per_s", "mix"))
        mix = enumerate(check.sequence(data["mix"], "workload.mix"))
        data["mix"] = tuple(RequestType.from_dict(t, f"workload.mix[{i}]") for i, t in mix)
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """The `workload` object of a scenario file."""
        own = {name: getattr(self, name) for name in _PARAMETERS[self.kind] if getattr(self, name) is not None}
        if "hourly_weights" in own:
            own["hourly_weights"] = list(own["hourly_weights"])
        return {
            "kind": self.kind,
            "rate_per_s": self.rate_per_s,
            **own,
            "model_persistence": self.model_persistence,
            "mix": [t.to_dict() for t in self.mix],
        }
