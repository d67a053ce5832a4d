"""What measured servers need to know of tasks, as tensors: from a file's columns or from drawn requests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpolicy._types import Floats, Ints
from diffpolicy.edge.physics.service import NOTHING, Measured, MeasuredService
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.task_file import TaskList


def service_tables(scenario: Scenario, models: tuple[str, ...], like: dict[str, Any]) -> MeasuredService | None:
    """The measured times of a scenario's servers; None under the linear law. Args: models: names of tasks' models."""
    services = [server.service for server in scenario.servers if server.service is not None]
    return MeasuredService(services, models, **like) if services else None


def kinds(model: Ints, megapixels: Floats, steps: Ints) -> Ints:
    """A number for each set of like requests, `[K]`."""
    _, kind = np.unique(np.stack([model, megapixels, steps], -1), axis=0, return_inverse=True)
    return kind.reshape(-1).astype(np.int64)


def as_tensors(base: Floats, model: Ints, kind: Ints, images: Ints, luck: Floats, like: dict[str, Any]) -> Measured:
    """Arrays `[K]`, base `[K, S]`, as tensors."""
    device = like["device"]
    return Measured(
        torch.as_tensor(base, **like),
        torch.as_tensor(model, device=device),
        torch.as_tensor(kind, device=device),
        torch.as_tensor(images, **like),
        torch.as_tensor(luck, **like),
    )


def measured_of_file(
    tasks: TaskList, scenario: Scenario, like: dict[str, Any]
) -> tuple[tuple[str, ...], Measured | None]:
    """What measured servers take for a file's tasks; without sizes in the file, work / capacity and no model."""
    if not scenario.measured:
        return (), None
    luck = np.random.Generator(np.random.PCG64(np.random.SeedSequence((0, 2)))).standard_normal(len(tasks))
    one = np.ones(len(tasks), dtype=np.int64)
    if tasks.megapixels is None:
        capacity = np.array([server.capacity_gcycles_per_s for server in scenario.servers])
        base = tasks.work_gcycles[:, None] / capacity
        return (), as_tensors(base, NOTHING * one, NOTHING * one, one, luck, like)
    models, model = tasks.models, tasks.model
    service = service_tables(scenario, models, like)
    assert service is not None
    images = one if tasks.images is None else tasks.images
    base = service.base_s(model, tasks.megapixels, tasks.steps.astype(float), images.astype(float))
    return models, as_tensors(base, model, kinds(model, tasks.megapixels, tasks.steps), images, luck, like)


def row(m: Measured, t: int) -> tuple[Tensor, ...]:
    """Task t of `[K]`, field by field."""
    return m.base_s[t], m.model[t], m.kind[t], m.images[t], m.luck[t]


def on_grid(m: Measured, rows: slice, order: Tensor, shape: tuple[int, int, int]) -> Measured:
    """A step's tasks on the grid, `[1, B, N]`."""

    def put(x: Tensor) -> Tensor:
        flat = x.new_zeros(1, shape[1] * shape[2], *x.shape[1:])
        flat[0, order[0]] = x[rows]
        return flat.view(*shape, *x.shape[1:])

    return Measured(put(m.base_s), put(m.model), put(m.kind), put(m.images), put(m.luck))
