"""Exports a station's policy to ONNX and decides with the file alone, task after task, as a dispatcher would."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from diffpolicy.edge import Scenario
from diffpolicy.edge.training import build
from diffpolicy.export import ExportedDecision, export_decision
from diffpolicy.training.fit import fit


def main() -> None:
    torch.set_num_threads(1)
    scenario = Scenario.load("lad-ts").override(stations=4, slots=20)
    module = build("lad-ts-plus", scenario)
    fit(module, episodes=20)
    with tempfile.TemporaryDirectory() as folder:
        written = export_decision(module.policy.for_agent(2), Path(folder) / "station2.onnx")
        size = written.path.stat().st_size
        print(f"{size:,} bytes; differs from the policy by at most {written.difference:.0e} on random inputs")
        decide = ExportedDecision(written.path)
    for name in ("inputs", "outputs"):
        print(name, {part["name"]: part["shape"] for part in decide.description[name]})

    draws = torch.Generator().manual_seed(0)
    latent = torch.full((1, 4), 1 / 4)  # nothing is remembered yet
    queues = torch.tensor([40.0, 0.0, 25.0, 5.0])  # Gcycles at each server
    chosen = torch.zeros(4, dtype=torch.int64)
    for _ in range(200):
        task = torch.tensor([3.5, 1.5])  # Mbit to send, Gcycles to compute
        observation = torch.cat([task, queues]).unsqueeze(0)
        outputs = decide(observation=observation, latent=latent, uniform=torch.rand(1, generator=draws))
        latent = outputs["next_latent"]
        chosen[outputs["action"]] += 1
    print("200 tasks by server:", chosen.tolist())


if __name__ == "__main__":
    main()
