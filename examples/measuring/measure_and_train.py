"""From a measured server to a policy: profile, calibrate, train, evaluate.

The server is a tiny Stable Diffusion 3 pipeline with random weights on this processor; a published profile of an H100,
slowed down to its order, stands for a second one.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from diffpolicy.edge import evaluate
from diffpolicy.edge.hardware.adapters.diffusers_ import DiffusersAdapter
from diffpolicy.edge.hardware.calibration import calibrate
from diffpolicy.edge.hardware.measuring.grid import Grid
from diffpolicy.edge.hardware.measuring.profiler import profile
from diffpolicy.edge.hardware.schema.records import ServerInfo
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.training import train


def main() -> None:
    torch.set_num_threads(1)
    grid = Grid(steps=(4, 10, 20), sizes=((64, 64), (96, 96)), repeats=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "worker.json"
        measured = profile(DiffusersAdapter("tiny", device="cpu"), grid)
        measured.save(path)
        worker = ServerProfile.load(path)
    print(f"20 steps of 96x96 take {worker.service_s(96, 96, 20):.2f} s, R2 {worker.fit.r2:.3f}")

    slower = replace(
        worker,
        server=ServerInfo("half as fast", "cpu"),
        fit=replace(worker.fit, sizes=tuple(replace(s, step_s=2 * s.step_s) for s in worker.fit.sizes)),
    )
    scenario = calibrate([worker, worker, slower], load=0.8, slots=60, accept_poor_fit=True)
    print(f"{len(scenario.servers)} servers, {scenario.workload.rate_per_s:.1f} requests/s, load 0.8")

    with tempfile.TemporaryDirectory() as folder:
        train("lad-ts-plus", scenario, episodes=20, out=folder)
        evaluation = evaluate([folder, "opt-ts", "power-of-two", "random"], scenario, episodes=4)
    for name, result in evaluation.results.items():
        shown = "lad-ts-plus" if name == folder else name
        print(f"{shown}: mean {result.delays.mean_delay_s:.2f} s, p95 {result.delays.p95_delay_s:.2f} s")


if __name__ == "__main__":
    main()
