"""Rules and a trained diffusion policy on a recorded trace with model switches, and on the built-in `gpu-mix`.

The trace is the user's own file of Alibaba's GenTD26 (`lora_request_trace.csv`), which may not be bundled.

python benchmarks/traces.py --trace PATH/lora_request_trace.csv --minutes 4 --out runs/traces
python benchmarks/traces.py --trace PATH/lora_request_trace.csv --minutes 0 --out runs/traces    # nothing is trained
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffpolicy.edge import Scenario, make_policy, play_episodes
from diffpolicy.edge.hardware.calibration import service_of
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.scenario.scenario import Server
from diffpolicy.edge.training import train
from diffpolicy.edge.workload.recorded import TraceWorkload
from diffpolicy.edge.workload.traces.readers import read_alibaba
from timing import table, write_csv

RULES = (
    "opt-ts",
    "price",
    "pretrained:live",
    "pretrained:stale",
    "least-work",
    "power-of-two",
    "weighted-round-robin",
    "capacity-proportional",
    "random",
)
SWITCH_S = 22.7
"""Median time to load a base model in the trace's own record."""


def on_trace(path: Path, folder: Path, load: float, slots: int, servers: int) -> Scenario:
    """A fleet of A100s with SDXL's times that loads the trace's models, under the trace's requests at a load."""
    profile = ServerProfile.load("mlenergy-a100-sdxl")
    service = replace(service_of(profile), switch_s=SWITCH_S, cold_s=SWITCH_S)
    fleet = tuple(Server(1.0, 1000.0, name=f"a100-{a}", service=service) for a in range(servers))
    file = folder / "trace.csv"
    read_alibaba(path).to_tasks(file, 1, gcycles_per_step=profile.service_s(1024, 1024, 25) / 25)
    workload = TraceWorkload(str(file))
    return Scenario(
        1.0, fleet, slots=slots, stations=(None,), workload=workload.with_load(load, servers), name="alibaba"
    )


def main() -> None:
    """Prints a table for each scenario, and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--load", type=float, default=0.5, help="of the requests alone, without loading models")
    parser.add_argument("--servers", type=int, default=12)
    parser.add_argument("--slots", type=int, default=400)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=3.0, help="of training for each scenario; 0: none")
    parser.add_argument("--environments", type=int, default=8, help="played side by side in training")
    parser.add_argument("--trained", type=Path, help="a folder of an earlier run, whose policies are not trained again")
    parser.add_argument("--out", type=Path, default=Path("runs/traces"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        scenarios = {"gpu-mix": (Scenario.load("gpu-mix"), 10.0)}
        if options.trace:
            fleet = on_trace(options.trace, Path(name), options.load, options.slots, options.servers)
            scenarios["alibaba"] = (fleet, 120.0)
        for title, (scenario, deadline_s) in scenarios.items():
            folder = (options.trained or options.out) / title
            shown_policies = [*RULES, *([str(folder)] if options.trained or options.minutes else [])]
            if options.trained is None and options.minutes:
                train(
                    "lad-ts-plus",
                    scenario,
                    episodes=None,
                    max_seconds=60 * options.minutes,
                    environments=options.environments,
                    out=folder,
                )
            rows = []
            for name in shown_policies:
                policy = make_policy(name, scenario)
                cost = play_episodes(scenario, policy, options.episodes).cost
                spread = [cost.mean(), *np.percentile(cost, [50, 95, 99])]
                shown = name if name in RULES else f"lad-ts-plus, {policy.trained['episodes']} episodes"
                rows.append([shown, *(f"{x:.2f}" for x in spread), f"{100 * np.mean(cost <= deadline_s):.1f} %"])
            columns = [title, "mean s", "p50", "p95", "p99", f"within {deadline_s:g} s"]
            print(table(columns, rows), end="\n\n", flush=True)
            write_csv(options.out / f"{title}.csv", [columns, *rows])


if __name__ == "__main__":
    main()
