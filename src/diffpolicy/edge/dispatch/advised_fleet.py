"""`AdvisedFleet`: servers that advice is for, where they are others than those of a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._types import Bools, Floats
from diffpolicy.edge.hardware.adapters.server_url import ServerUrl
from diffpolicy.errors import InputError


@dataclass(frozen=True)
class AdvisedServer:
    """A server that advice is for.

    Args:
        name: as the log calls it. seats: requests that it works on at once; None: what the log shows, or 1.
        speed: in relation to the others of its file; None: what the log shows.

    Example:
        >>> AdvisedServer("gpu0", seats=2).speed is None
        True
    """

    name: str
    seats: int | None = None
    speed: float | None = None


@dataclass(frozen=True)
class AdvisedFleet:
    """The servers that advice is for.

    Args:
        name: of their file. servers: at least one, each of another name.

    Raises:
        InputError: on reading, a name lacks or stands twice, or a value is out of range.

    Example:
        >>> from pathlib import Path
        >>> workers = '[{"name": "a", "slots": 2}, {"name": "c", "speed": 0.5}]'
        >>> _ = Path("fleet.json").write_text(f'{{"workers": {workers}}}')
        >>> [server.name for server in AdvisedFleet.read("fleet.json").servers]
        ['a', 'c']
    """

    name: str
    servers: tuple[AdvisedServer, ...]

    @classmethod
    def read(cls, path: str | Path) -> AdvisedFleet:
        """From a scenario, or from the workers file of a service.

        Args:
            path: of a JSON file with `servers`, whose speeds are their capacities, or with `workers`, each with `name`
                or `url`, and where they are known `slots` and `speed`.

        Raises:
            InputError: names the file, the server and the key.
        """
        what = f"fleet file {Path(path).name}"
        data = check.read_json(Path(path), "fleet file")
        if isinstance(data, Mapping) and "servers" in data:
            found = _of_scenario(path, what)
        else:
            listed = data.get("workers") if isinstance(data, Mapping) else None
            if not isinstance(listed, list) or not listed:
                raise InputError(
                    f"{what} must hold 'servers', as a scenario does, or 'workers', either of them a list that is not "
                    "empty"
                )
            found = [_worker(f"{what}: workers[{k}]", entry) for k, entry in enumerate(listed)]
        names = [server.name for server in found]
        for name in (name for name in names if names.count(name) > 1):
            raise InputError(f"{what} names the server {check.show(name)} twice")
        return cls(what, tuple(found))

    def seconds(self, servers: tuple[str, ...], seconds: Floats, extrapolated: Bools) -> tuple[Floats, Bools]:
        """Expected seconds of each kind on these servers, and which nobody measured, `[kinds, S]`.

        A server that the log does not know takes as long as those that it knows, times the ratio of the speeds that the
        file tells; where it tells none of these, 1 is the log's fastest.

        Args:
            servers: of the log. seconds, extrapolated: of a fit to it, `[kinds, servers]`.

        Raises:
            InputError: nobody tells how fast a new server is.
        """
        speed = np.exp(-np.log(seconds).mean(0))
        told = {s.name: s.speed for s in self.servers if s.name in servers and s.speed is not None}
        unit = speed.max()
        if told:
            ratios = [speed[servers.index(name)] / value for name, value in told.items()]
            unit = float(np.exp(np.log(ratios).mean()))
        work = np.exp(np.log(seconds * speed).mean(1))
        columns, unknown = [], []
        for server in self.servers:
            if server.name in servers:
                columns.append(seconds[:, servers.index(server.name)])
                unknown.append(extrapolated[:, servers.index(server.name)])
                continue
            if server.speed is None:
                raise InputError(
                    f"{self.name}: server {server.name} is not in the log, so its speed is not known; give it a speed, "
                    "with 1 for that of the fastest server in the log"
                )
            columns.append(work / (unit * server.speed))
            unknown.append(np.ones(len(work), dtype=bool))
        return np.stack(columns, -1), np.stack(unknown, -1)


def _of_scenario(path: str | Path, what: str) -> list[AdvisedServer]:
    """The servers of a scenario file."""
    from diffpolicy.edge.scenario.scenario import Scenario

    found = []
    for number, server in enumerate(Scenario.load(path).servers):
        if server.name is None:
            raise InputError(f"{what}: servers[{number}] has no name, so it cannot be found in a log")
        # 1 is what a scenario has that nobody measured; then the log may know better
        seats = None if server.service is None or server.service.slots == 1 else server.service.slots
        found.append(AdvisedServer(server.name, seats, server.capacity_gcycles_per_s))
    return found


def _worker(where: str, entry: Any) -> AdvisedServer:
    """One entry of a workers file. Args: where: it stands. entry: it; what only the service reads is not checked."""
    if not isinstance(entry, Mapping):
        raise InputError(f"{where} must be an object with a name or a url, got {check.show(entry)}")
    name = entry.get("name") or ""
    with check.within(where):
        if not name and "url" in entry:
            ServerUrl.parse(entry["url"])
            name = urlsplit(entry["url"]).netloc
    if not isinstance(name, str) or not name:
        raise InputError(f"{where} must have a name or a url, got {check.show(list(entry))} alone")
    with check.within(where):
        slots, speed = entry.get("slots"), entry.get("speed")
        return AdvisedServer(
            name,
            None if slots is None else check.integer(slots, "slots", least=1, most=_limits.SEATS),
            None if speed is None else check.number(speed, "speed", least=_limits.SLOWEST, most=_limits.FASTEST),
        )
