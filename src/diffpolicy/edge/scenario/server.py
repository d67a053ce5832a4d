"""`Server`: one edge server of a scenario."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.edge.scenario.availability import Availability
from diffpolicy.edge.scenario.service_times import ServerService
from diffpolicy.errors import InputError

_NEEDED = ("capacity_gcycles_per_s", "rate_mbit_per_s")
_KEYS = (*_NEEDED, "name", "power_w", "price_per_hour", "models", "availability", "service")


@dataclass(frozen=True)
class Server:
    """One edge server.

    Args:
        capacity_gcycles_per_s: work it does in a second, f > 0.
        rate_mbit_per_s: rate of the link to it, v > 0, whoever sends.
        name: how people call it.
        power_w: electrical power while it works, watts.
        price_per_hour: what it costs, in any currency.
        models: names of the models that it can serve; kept in files and read by nothing: any task may be sent to any
            server. What measured servers can run stands in `service.models`, and a workload that asks for another
            model is refused.
        availability: when it is down; None: never.
        service: measured times of its runs; None: the linear law, work / capacity.

    Raises:
        InputError: a value is out of range or of another kind; on reading, also a key is unknown or missing.

    Example:
        >>> server = Server(capacity_gcycles_per_s=30.0, rate_mbit_per_s=450.0, name="roof")
        >>> server.to_dict()
        {'capacity_gcycles_per_s': 30.0, 'rate_mbit_per_s': 450.0, 'name': 'roof'}
    """

    capacity_gcycles_per_s: float
    rate_mbit_per_s: float
    name: str | None = None
    power_w: float | None = None
    price_per_hour: float | None = None
    models: tuple[str, ...] | None = None
    availability: Availability | None = None
    service: ServerService | None = None

    def __post_init__(self) -> None:
        for name in _NEEDED:
            rate = check.number(getattr(self, name), name, above=0, least=_limits.LEAST, most=_limits.MOST)
            object.__setattr__(self, name, rate)
        for name in ("power_w", "price_per_hour"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check.number(getattr(self, name), name, least=0, most=_limits.MOST))
        if self.name is not None and not isinstance(self.name, str):
            raise InputError(f"name must be a string, got {check.show(self.name)}")
        if self.models is not None:
            object.__setattr__(self, "models", tuple(check.sequence(self.models, "models")))
            for model in self.models:
                if not isinstance(model, str):
                    raise InputError(f"models must hold strings, got {check.show(model)}")
        for name, kind in (("availability", Availability), ("service", ServerService)):
            part = getattr(self, name)
            if part is not None and not isinstance(part, kind):
                raise InputError(f"{name} must be {kind.__name__} or None, got {check.show(part)}")

    @classmethod
    def from_dict(cls, data: Any, key: str) -> Server:
        """One entry of a scenario's `servers`.

        Args:
            data: as it stands in the file. key: names it in messages.

        Raises:
            InputError: a key is unknown or missing or a value is out of range; the sentence names it.
        """
        data = check.mapping(data, key, allowed=_KEYS, required=_NEEDED)
        if data.get("availability") is not None:
            data["availability"] = Availability.from_dict(data["availability"], f"{key}.availability")
        if data.get("service") is not None:
            data["service"] = ServerService.from_dict(data["service"], f"{key}.service")
        with check.within(key):
            return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """The entry of a scenario file; optional keys that are not set are left out."""
        given = {name: getattr(self, name) for name in _KEYS if getattr(self, name) is not None}
        if self.models is not None:
            given["models"] = list(self.models)
        for name in ("availability", "service"):
            if name in given:
                given[name] = given[name].to_dict()
        return given
