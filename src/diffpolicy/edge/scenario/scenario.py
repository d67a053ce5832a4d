"""`Scenario`: servers, stations, slots and the workload, as one frozen and validated object with a JSON form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._read import show_path, what_is
from diffpolicy._suggest import meant
from diffpolicy._total import total
from diffpolicy.edge.names import SCENARIO_NAMES
from diffpolicy.edge.scenario import released
from diffpolicy.edge.scenario.draws import overridden
from diffpolicy.edge.scenario.server import Server as Server
from diffpolicy.edge.workload.by_size import SizedWorkload
from diffpolicy.edge.workload.lad_ts import Workload
from diffpolicy.edge.workload.recorded import TraceWorkload
from diffpolicy.edge.workload.requests import REQUEST_KINDS, RequestWorkload
from diffpolicy.errors import InputError

SCHEMA = "diffpolicy.scenario/1"
_SCENARIO = ("schema", "slot_s", "slots", "servers", "stations", "workload")


@dataclass(frozen=True)
class Scenario:
    """A fleet of edge servers, the stations that send to it, and what arrives.

    Args:
        slot_s: length of a slot in seconds, > 0.
        servers: S >= 1 servers.
        slots: slots of an episode, T >= 1; None: no horizon.
        stations: for each of the B stations the index of its own server, or None; by default one station a server.
        workload: law of arrivals; None where tasks come from a file.
        name: how the scenario was called when it was loaded; not part of the file.

    Raises:
        InputError: a value is out of range; the sentence names its key.

    Example:
        >>> scenario = Scenario.load("lad-ts")  # the setting of arXiv 2412.18212
        >>> len(scenario.servers), scenario.slots, round(scenario.load_factor(), 2)
        (20, 59, 1.24)
        >>> Scenario(1.0, (Server(30.0, 450.0), Server(20.0, 400.0)), slots=60).capacity_gcycles_per_s
        50.0
    """

    slot_s: float
    servers: tuple[Server, ...]
    slots: int | None = None
    stations: tuple[int | None, ...] = ()
    workload: Workload | RequestWorkload | TraceWorkload | None = None
    name: str = field(default="scenario", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "slot_s", check.number(self.slot_s, "slot_s", above=0, least=_limits.LEAST, most=_limits.MOST)
        )
        servers = check.sequence(self.servers, "servers")
        if not 1 <= len(servers) <= _limits.SERVERS:
            raise InputError(f"servers must hold from 1 to {_limits.SERVERS} servers, got {check.show(servers)}")
        for a, server in enumerate(servers):
            if not isinstance(server, Server):
                raise InputError(f"servers[{a}] must be a Server, got {check.show(server)}")
        checked: tuple[Server, ...] = tuple(servers)
        object.__setattr__(self, "servers", checked)
        if self.workload is not None and not isinstance(self.workload, (Workload, RequestWorkload, TraceWorkload)):
            raise InputError(
                f"workload must be a Workload, RequestWorkload or TraceWorkload, got {check.show(self.workload)}"
            )
        if not isinstance(self.name, str):
            raise InputError(f"name must be a string, got {check.show(self.name)}")
        if self.slots is not None:
            object.__setattr__(self, "slots", check.integer(self.slots, "slots", least=1, most=_limits.SLOTS))
        self._check_services(checked)
        self._check_outages(checked)
        stations = check.sequence(self.stations, "stations") or list(range(len(servers)))
        if len(stations) > _limits.SERVERS:
            raise InputError(f"stations must hold at most {_limits.SERVERS} stations, got {len(stations)}")
        for b, server in enumerate(stations):
            if server is not None and not 0 <= check.integer(server, f"stations[{b}]") < len(servers):
                raise InputError(f"stations[{b}] must be a server index from 0 to {len(servers) - 1}, got {server}")
        object.__setattr__(self, "stations", tuple(None if s is None else int(s) for s in stations))

    def _check_services(self, servers: tuple[Server, ...]) -> None:
        """Either all servers have measured times or none, and all can run what the workload asks for."""
        without = [a for a, server in enumerate(servers) if server.service is None]
        if without and len(without) < len(servers):
            raise InputError(f"servers[{without[0]}] lacks the key 'service', which other servers have")
        asked = self.workload.models if isinstance(self.workload, (RequestWorkload, TraceWorkload)) else ()
        for model in asked if not without else ():
            for a, server in enumerate(servers):
                if server.service is not None and server.service.times(model) is None:
                    raise InputError(
                        f"servers[{a}].service.models lacks {check.show(model)}, which the workload asks for"
                    )

    def _check_outages(self, servers: tuple[Server, ...]) -> None:
        """A server may fail often in an episode, but not without end."""
        if self.slots is None or self.workload is None:
            return
        if isinstance(self.workload, Workload):
            length_s = self.slots * self.slot_s
        else:
            length_s = self.slots / self.workload.mean_rate_per_s
        for a, server in enumerate(servers):
            if server.availability is None or server.availability.mtbf_s is None:
                continue
            between_s = server.availability.mtbf_s + (server.availability.mttr_s or 0.0)
            if length_s > _limits.OUTAGES * between_s:
                raise InputError(
                    f"servers[{a}].availability would fail more than {_limits.OUTAGES:,} times in an episode of "
                    f"{length_s:g} s: mtbf_s + mttr_s must be longer, got {between_s:g} s"
                )

    @property
    def measured(self) -> bool:
        """Whether runs take measured times instead of work / capacity."""
        return self.servers[0].service is not None

    @property
    def capacity_gcycles_per_s(self) -> float:
        """Work that the fleet does in a second, outages counted off."""
        up = [1.0 if s.availability is None else s.availability.share_up() for s in self.servers]
        return total(s.capacity_gcycles_per_s * x for s, x in zip(self.servers, up, strict=True))

    @classmethod
    def load(cls, source: str | Path) -> Scenario:
        """A built-in scenario by its name, or a JSON file.

        Args:
            source: a name (`lad-ts`, `fdedge`, `dedgeai`, `gpu-mix`) or a path.

        Raises:
            InputError: neither a built-in name nor a readable, valid file.
        """
        if source == "lad-ts":
            return cls.lad_ts()
        if source == "fdedge":
            return cls.fdedge()
        path = Path(source)
        if source in SCENARIO_NAMES:
            path = Path(str(resources.files("diffpolicy.edge") / "scenarios" / f"{source}.json"))
        elif not str(source) or (not what_is(path) and path.suffix != ".json"):
            raise InputError(
                f"scenario {check.show(str(source))} is neither built in ({', '.join(SCENARIO_NAMES)}) nor a file"
                f"{meant(str(source), SCENARIO_NAMES)}"
            )
        try:
            return cls.from_dict(check.read_json(path, "scenario file"), name=str(source), folder=path.parent)
        except InputError as error:
            message = str(error)
            name = show_path(path)
            raise InputError(message if name in message else f"scenario file {name}: {message}") from None

    @classmethod
    def lad_ts(cls) -> Scenario:
        """The paper's main setting with the constants of the released code: 20 servers, overloaded at 1.24."""
        fleet = zip(released.capacities(released.STATIONS), released.rates(released.STATIONS), strict=True)
        servers = tuple(Server(float(f), float(v)) for f, v in fleet)
        return cls(1.0, servers, slots=released.SLOTS, workload=released.workload(), name="lad-ts")

    @classmethod
    def fdedge(cls) -> Scenario:
        """FDEdge's single master, which sends all tasks to ten servers and has none itself: load 0.76."""
        size = released.MASTER_SERVERS
        fleet = zip(released.capacities(size), released.rates(size), strict=True)
        servers = tuple(Server(float(f), float(v)) for f, v in fleet)
        workload = released.master_workload()
        return cls(1.0, servers, released.MASTER_SLOTS, stations=(None,), workload=workload, name="fdedge")

    @classmethod
    def from_dict(cls, data: Any, name: str = "scenario", folder: Path | None = None) -> Scenario:
        """The object of a scenario file; unknown keys are refused.

        Args:
            data: the object. name: how it is called. folder: where files that it names are looked for.

        Raises:
            InputError: a key is unknown or missing, or a value is out of range; the sentence names it.
        """
        if isinstance(data, dict) and data.get("schema", SCHEMA) != SCHEMA:
            raise InputError(f"schema must be '{SCHEMA}', got {check.show(data['schema'])}")
        data = check.mapping(data, "scenario", allowed=_SCENARIO, required=("schema", "slot_s", "servers"))
        servers = check.sequence(data["servers"], "servers")
        if "stations" in data and not check.sequence(data["stations"], "stations"):
            raise InputError("stations must hold at least one station, got []")
        return cls(
            slot_s=data["slot_s"],
            servers=tuple(Server.from_dict(server, f"servers[{a}]") for a, server in enumerate(servers)),
            slots=data.get("slots"),
            stations=tuple(data.get("stations", ())),
            workload=None if data.get("workload") is None else _workload(data["workload"], folder or Path()),
            name=name,
        )

    def to_dict(self) -> dict[str, Any]:
        """The object of a scenario file."""
        data: dict[str, Any] = {"schema": SCHEMA, "slot_s": self.slot_s}
        if self.slots is not None:
            data["slots"] = self.slots
        data["servers"] = [server.to_dict() for server in self.servers]
        if self.stations != tuple(range(len(self.servers))):
            data["stations"] = list(self.stations)
        if self.workload is not None:
            data["workload"] = self.workload.to_dict()
        return data

    def digest(self) -> str:
        """SHA-256 of the file form and a trace's contents: equal scenarios have equal digests, whatever their name."""
        data = self.to_dict()
        if isinstance(self.workload, TraceWorkload):
            data["workload"]["sha256"] = self.workload.sha256
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def load_factor(self) -> float:
        """Expected work offered over capacity x time; above 1 the queues grow without bound.

        Raises:
            InputError: the scenario has no workload.
        """
        if self.workload is None:
            raise InputError(f"scenario {self.name} has no workload, so its load is not known")
        if isinstance(self.workload, Workload):
            per_second = len(self.stations) * self.workload.mean_work_gcycles() / self.slot_s
        else:
            per_second = self.workload.mean_work_gcycles_per_s()
        return per_second / self.capacity_gcycles_per_s

    def override(
        self,
        *,
        tasks: int | None = None,
        stations: int | None = None,
        slots: int | None = None,
        capacity: tuple[int, int] | None = None,
        steps: tuple[int, int] | None = None,
    ) -> Scenario:
        """The same scenario with some of the paper's knobs turned, by the draws of the released code.

        Args:
            tasks: greatest number of tasks of a station in a slot; tables that are too short are continued.
            stations: number of stations, each with a server of its own, all drawn anew.
            slots: slots of an episode.
            capacity: range U{LO..HI} from which all capacities are drawn anew, Gcycles/s.
            steps: range U{LO..HI-1} from which the denoising steps by index are drawn anew.

        Raises:
            InputError: a value is out of range, or the scenario has no workload to change.
        """
        return overridden(self, tasks=tasks, stations=stations, slots=slots, capacity=capacity, steps=steps)


def _workload(data: Any, folder: Path) -> Workload | RequestWorkload | TraceWorkload:
    """The `workload` object of a scenario file, by its kind."""
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if kind == "trace":
        return TraceWorkload.from_dict(data, folder)
    if kind in REQUEST_KINDS:
        return RequestWorkload.from_dict(data)
    if kind == SizedWorkload.own_kind:
        return SizedWorkload.from_dict(data)
    if kind is not None and kind != "lad-ts":
        check.choice(kind, "workload.kind", ("lad-ts", SizedWorkload.own_kind, *REQUEST_KINDS, "trace"))
    return Workload.from_dict(data)
