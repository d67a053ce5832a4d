"""The constants of the released LAD-TS and FDEdge codes: their draws, so that sweeps are the same systems.

The released `main_lad.py` (see arXiv 2412.18212) draws its fleet and its task tables once from NumPy's legacy
generator: capacities after seed 2, rates after seed 5, and each of the three task tables after seed 1. The three
tables are therefore correlated; that is part of the system. FDEdge's code, of the same group, draws its fleet alike.
"""

from __future__ import annotations

import numpy as np

from diffpolicy._types import Floats
from diffpolicy.edge.workload.by_size import SizedWorkload
from diffpolicy.edge.workload.lad_ts import Workload

CAPACITY_GCYCLES_PER_S = (10, 50)
STEPS = (1, 15)
TASKS = 50
STATIONS = 20
SLOTS = 59


def capacities(servers: int, lo: int = CAPACITY_GCYCLES_PER_S[0], hi: int = CAPACITY_GCYCLES_PER_S[1]) -> Floats:
    """U{lo..hi} Gcycles/s, `[servers]`."""
    return np.random.RandomState(2).randint(lo, hi + 1, size=servers).astype(np.float64)


def rates(servers: int) -> Floats:
    """U{400..500} Mbit/s, `[servers]`."""
    return np.random.RandomState(5).randint(400, 501, size=servers).astype(np.float64)


def workload(tasks: int = TASKS, lo_steps: int = STEPS[0], hi_steps: int = STEPS[1]) -> Workload:
    """U{1..tasks} tasks a station and slot; steps are U{lo_steps..hi_steps - 1}, as `randint` has it."""
    indices = max(tasks, TASKS)
    return Workload(
        tasks_per_station_and_slot=(1, tasks),
        input_mbit=(2.0, 5.0),
        gcycles_per_step=tuple(np.random.RandomState(1).uniform(0.1024, 0.3072, indices).tolist()),
        steps=tuple(np.random.RandomState(1).randint(lo_steps, hi_steps, indices).tolist()),
        result_mbit=tuple(np.random.RandomState(1).uniform(0.6, 1.0, indices).tolist()),
    )


MASTER_SERVERS, MASTER_SLOTS, MASTER_TASKS = 10, 99, 100


def master_workload() -> SizedWorkload:
    """FDEdge's: U{1..100} tasks a slot of U[10, 40) Mbit, whose work is in proportion; results are not sent back."""
    per_mbit = np.random.RandomState(1).uniform(0.1024, 0.3072, MASTER_TASKS)
    return SizedWorkload(
        (1, MASTER_TASKS),
        (10.0, 40.0),
        result_mbit=(0.0,) * MASTER_TASKS,
        gcycles_per_mbit=tuple(per_mbit.tolist()),
    )
