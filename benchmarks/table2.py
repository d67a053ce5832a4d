"""The paper's Table II: the time to N images, by the paper's convention and by equal concurrency.

The paper gives a service over the net N times the time of one image, as if a client called it again only when the last
image had come, and its own five devices N requests at once. Both conventions are printed for both kinds of server.

python benchmarks/table2.py --out runs/table2.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from diffpolicy.edge import Scenario, TaskList, make_policy, replay
from timing import table, write_csv

REQUESTS = (1, 100, 500, 1000)
PAPER_S = {"DEdgeAI, paper": (18.3, 382.4, 1921.5, 3895.4)}
HOSTED_S = 5.4
"""Of one image of the hosted SD3 service in the paper's table, whose other entries are N times this."""


def at_once(scenario: Scenario, requests: int, policy: str) -> np.ndarray:
    """Delays in seconds of N requests that arrive at the same time."""
    kind = scenario.workload.mix[0]  # type: ignore[union-attr]
    of_each = np.ones(requests)
    tasks = TaskList(
        slot=np.zeros(requests, dtype=np.int64),
        duration_s=np.array([scenario.slot_s]),
        origin=np.full(requests, -1),
        input_mbit=of_each * kind.input_mbit,
        result_mbit=of_each * kind.result_mbit,
        work_gcycles=of_each * kind.work_gcycles,
        steps=np.full(requests, kind.steps),
    )
    return replay(scenario, tasks, make_policy(policy, scenario), name=policy).delay_s


def hosted(requests: int, concurrency: int) -> np.ndarray:
    """Delays in seconds of N requests to a hosted service that runs so many at once, each in `HOSTED_S`."""
    return HOSTED_S * (1 + np.arange(requests) // concurrency)


def main() -> None:
    """Prints the table, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", default="opt-ts")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    scenario = Scenario.load("dedgeai")
    devices = len(scenario.servers)
    rows = [["DEdgeAI, as the paper measured it", *(f"{x:.1f}" for x in PAPER_S["DEdgeAI, paper"]), "", ""]]
    one_s = float(at_once(scenario, 1, options.policy)[0])

    def add(name: str, totals: list[float], delays: np.ndarray) -> None:
        rows.append([name, *(f"{t:.1f}" for t in totals), f"{delays.mean():.1f}", f"{np.percentile(delays, 95):.1f}"])

    runs = [at_once(scenario, n, options.policy) for n in REQUESTS]
    add(f"{devices} devices simulated, all requests at once", [d.max() for d in runs], runs[-1])
    serial = one_s * (1 + np.arange(REQUESTS[-1]))
    add("the same, one request at a time", [n * one_s for n in REQUESTS], serial)
    for concurrency, words in ((1, "one request at a time, as in the paper"), (devices, f"{devices} requests at once")):
        runs = [hosted(n, concurrency) for n in REQUESTS]
        add(f"hosted SD3, {words}", [d.max() for d in runs], runs[-1])
    columns = ["seconds to N images", *(f"N = {n}" for n in REQUESTS), "mean of 1000", "p95 of 1000"]
    print(table(columns, rows))
    if options.out:
        write_csv(options.out, [columns, *rows])


if __name__ == "__main__":
    main()
