"""Describe a fleet and its arrivals in a scenario file, see how loaded it is, and turn one knob.

From the command line: `diffpolicy evaluate opt-ts local --scenario fleet.json --slots 60`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from diffpolicy import InputError
from diffpolicy.edge import Scenario, evaluate

FLEET = {
    "schema": "diffpolicy.scenario/1",
    "slot_s": 1.0,
    "slots": 60,
    "servers": [
        {"name": "big", "capacity_gcycles_per_s": 40.0, "rate_mbit_per_s": 450.0},
        {"name": "small", "capacity_gcycles_per_s": 12.0, "rate_mbit_per_s": 480.0},
    ],
    "stations": [0, 1, 1],
    "workload": {
        "kind": "lad-ts",
        "tasks_per_station_and_slot": [0, 3],
        "input_mbit": [2.0, 5.0],
        "by_index": {"gcycles_per_step": [0.2, 0.3, 0.4], "steps": [20, 28, 50], "result_mbit": [0.8, 0.8, 1.6]},
    },
}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.json"
        path.write_text(json.dumps(FLEET, indent=1))
        scenario = Scenario.load(path)
        FLEET["servers"][0]["capacity"] = 40
        path.write_text(json.dumps(FLEET))
        try:
            Scenario.load(path)
        except InputError as error:
            print(f"a mistake is refused: {str(error).replace(folder, '...')}")
    for stations_can_send_at_most in (3, 2, 1):
        busy = scenario.override(tasks=stations_can_send_at_most)
        evaluation = evaluate(["opt-ts", "capacity-proportional", "local"], busy, episodes=8)
        delays = ", ".join(f"{name} {r.delays.mean_delay_s:.2f} s" for name, r in evaluation.results.items())
        print(f"at most {stations_can_send_at_most} tasks a station and slot: load {busy.load_factor():.2f}, {delays}")


if __name__ == "__main__":
    main()
