"""What arrives in an episode or a task file, for a dispatcher."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from diffpolicy import _validate as check
from diffpolicy._types import Floats, Ints
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.env.measured_tasks import service_tables
from diffpolicy.edge.env.request_sources import make_source
from diffpolicy.edge.physics.queueing import ServerSpeeds, unloaded_delay_s
from diffpolicy.edge.physics.service import Measured
from diffpolicy.edge.scenario.availability import Outages, Timeline
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.edge.workload.task_file import TaskList
from diffpolicy.errors import InputError

MOST_PARTS = 10**7
"""Of all requests together."""


@dataclass(frozen=True, eq=False)
class ScenarioArrivals:
    """The tasks of an episode, K of them, and where they come from.

    Args:
        arrivals: they, in order. A slot's tasks arrive as it begins.
        station: of each, int64 `[K]`. home: server at its origin, -1 for none, int64 `[K]`.
        input_mbit, result_mbit, work_gcycles: `[K]`.
        measured: what measured servers know of each, `[K]`; None under the linear law.
        seats: requests that each server works on at once, `[S]`.
        outages: of each server, `[S]`; None: none ever fails.
    """

    arrivals: Arrivals
    station: Ints
    home: Ints
    input_mbit: Floats
    result_mbit: Floats
    work_gcycles: Floats
    measured: Measured | None = None
    seats: tuple[int, ...] | int = 1
    outages: tuple[Timeline, ...] | None = None

    def split(self) -> ScenarioArrivals:
        """Each image of a request as a request of its own, see `Arrivals.split`."""
        assert self.measured is not None
        parts = self.measured.images.numpy().astype(np.int64)
        check.product({"images": int(parts.sum())}, MOST_PARTS, "the images that are sent one by one")
        rows, share = np.repeat(np.arange(len(parts)), parts), 1 / np.repeat(parts, parts)
        known = {f.name: getattr(self.measured, f.name)[rows] for f in fields(Measured)}
        known["images"] = torch.ones_like(known["images"])
        known["base_s"] = known["base_s"] * torch.as_tensor(share).unsqueeze(-1)
        return ScenarioArrivals(
            self.arrivals.split(parts),
            self.station[rows],
            self.home[rows],
            self.input_mbit[rows] * share,
            self.result_mbit[rows] * share,
            self.work_gcycles[rows] * share,
            Measured(**known),
            self.seats,
            self.outages,
        )


def check_holdable(scenario: Scenario, *, split: bool = False) -> None:
    """Refuses servers that cannot be bound late yet.

    Args:
        scenario: whose. split: whether requests are sent image by image.

    Raises:
        InputError: a server joins requests to batches; or images are to be sent one by one that
            nobody counts, or that a server makes faster together.
    """
    if split and not scenario.measured:
        raise InputError(
            f"scenario {scenario.name} cannot be split: its requests have no number of images, since its servers have "
            "no measured times"
        )
    for number, server in enumerate(scenario.servers):
        if server.service is not None and server.service.joins:
            raise InputError(
                f"server {number} of scenario {scenario.name} batches like requests (joins), whose times are not known "
                "before they are bound; if it takes any requests side by side, give it slots instead of joins"
            )
        if split and server.service is not None and len(server.service.batch) > 1:
            raise InputError(
                f"scenario {scenario.name} cannot be split: server {number} makes up to {len(server.service.batch)} "
                "images of a request together, faster than one by one"
            )


def seats_of(scenario: Scenario) -> tuple[int, ...]:
    """How many requests each server works on at once, `[S]`. Args: scenario: whose."""
    return tuple(1 if server.service is None else server.service.slots for server in scenario.servers)


def _outages(scenario: Scenario, episode: int, seed: int) -> tuple[Timeline, ...] | None:
    """Those that an environment would meet in an episode of the evaluation stream."""
    servers = [server.availability for server in scenario.servers]
    if all(x is None for x in servers):
        return None
    return tuple(Outages(servers, seed, Stream.EVALUATION).of(episode))


def arrivals_of(
    scenario: Scenario, episode: int = 0, seed: int = 0, *, tasks: TaskList | None = None, split: bool = False
) -> ScenarioArrivals:
    """What an environment of the scenario would show, slot by slot, as requests with times.

    Args:
        scenario: its servers and, without `tasks`, its workload and slots.
        episode: of the evaluation stream. seed: of the arrivals.
        tasks: of a file, in place of the workload. split: whether each image is a request of its own.

    Raises:
        InputError: the scenario has no workload, or its servers cannot be bound late.
    """
    check_holdable(scenario, split=split)
    source = make_source(scenario, tasks, seed, Stream.EVALUATION, torch.float64, None)
    if source.slots is None:
        raise InputError(f"scenario {scenario.name} has no 'slots', so an episode has no end; give it some")
    fleet = ServerSpeeds(
        torch.tensor([s.capacity_gcycles_per_s for s in scenario.servers], dtype=torch.float64),
        torch.tensor([s.rate_mbit_per_s for s in scenario.servers], dtype=torch.float64),
    )
    service = service_tables(scenario, source.models, {"dtype": torch.float64, "device": None})
    # a server that works on several at once takes longer for each; as if it always had them all
    together = torch.tensor([1.0 if s.service is None else s.service.together for s in scenario.servers]).double()
    columns: dict[str, list[Floats]] = {}
    now = source.start_s(episode)
    for t in range(source.slots):
        grid = source.slot([episode], [t])
        task = grid.in_order()
        real = task.valid[0]
        link = unloaded_delay_s(task, fleet)[0] - task.work_gcycles[0].unsqueeze(-1) / fleet.capacity_gcycles_per_s
        rows = {
            "arrival_s": torch.full_like(task.work_gcycles[0], now),
            "station": grid.order[0] // grid.valid.shape[-1],
            "home": task.origin[0],
            "input_mbit": task.input_mbit[0],
            "result_mbit": task.result_mbit[0],
            "work_gcycles": task.work_gcycles[0],
            "link_s": link.clamp_min(0),
        }
        if service is None:
            rows["expected_s"] = task.work_gcycles[0].unsqueeze(-1) / fleet.capacity_gcycles_per_s
            rows["service_s"] = rows["expected_s"]
        else:
            measured = grid.measured_in_order()
            rows["expected_s"] = measured.base_s[0] * together
            rows["service_s"] = rows["expected_s"] * (service.scatter * measured.luck[0].unsqueeze(-1)).exp()
            rows["model"] = measured.model[0].clamp_min(0)
            for each in fields(Measured):
                rows[f"measured {each.name}"] = getattr(measured, each.name)[0]
        for name, value in rows.items():
            columns.setdefault(name, []).append(value[real].numpy())
        now += float(grid.clock_s[0])
    of = {name: np.concatenate(parts) for name, parts in columns.items()}
    sized = service is not None and len(source.models) > 0
    arrivals = Arrivals(
        of["arrival_s"],
        of["service_s"],
        of["expected_s"],
        of["link_s"],
        of["work_gcycles"],
        model=of.get("model"),
        switch_s=service.switch_s.numpy() if sized and service is not None else None,
        cold_s=service.cold_s.numpy() if sized and service is not None else None,
    )
    known = [torch.as_tensor(of[f"measured {x.name}"]) for x in fields(Measured)] if service is not None else []
    found = ScenarioArrivals(
        arrivals,
        of["station"].astype(np.int64),
        of["home"].astype(np.int64),
        of["input_mbit"],
        of["result_mbit"],
        of["work_gcycles"],
        Measured(*known) if known else None,
        seats_of(scenario),
        _outages(scenario, episode, seed),
    )
    return found.split() if split else found
