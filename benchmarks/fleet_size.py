"""One live decision in a fleet: exported beside eager among 20 servers, and its cost from 20 to 1,000 servers.

python benchmarks/fleet_size.py --out docs/_static/fleet_size.csv

With 32 candidates the decision gathers their rows first and computes on them alone (see `FleetDecision`); drawing
them and keeping the fleet's sums, which are a few additions a task, are the dispatcher's and are not timed. Times are
those of the thread itself, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import torch

import pictures
from diffpolicy.edge import FleetPolicy, Scenario
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.pricing.decision import FleetDecision
from diffpolicy.export import ExportedDecision, export_decision
from diffpolicy.policies.recurrent import with_recurrent_state
from timing import interleaved, machine, table, write_csv

SERVERS = (20, 50, 100, 200, 500, 1000)
CANDIDATES = 32
FORMATS = {"aoti": "decision.pt2", "onnx": "decision.onnx"}


def bundled(candidates: int | None = None) -> FleetPolicy:
    """The bundled live policy, with candidates or without."""
    policy = FleetPolicy.pretrained("live")
    policy.rule.candidates = candidates
    return policy


def exports(policy: FleetPolicy, folder: str) -> dict[str, ExportedDecision]:
    """Its decision in both formats."""
    paths = {name: Path(folder) / f"{policy.rule.candidates}-{file}" for name, file in FORMATS.items()}
    return {name: ExportedDecision(export_decision(policy, path, name).path) for name, path in paths.items()}


def drawn(decision: FleetDecision, servers: int, rows: int = 1) -> dict[str, torch.Tensor]:
    """Inputs, with distinct candidates."""
    generator = torch.Generator().manual_seed(servers)
    inputs = {i.name: i.random(rows, generator, servers=servers) for i in decision.inputs}
    if "candidates" in inputs:
        inputs["candidates"] = torch.rand(rows, servers, generator=generator).argsort(-1)[:, :CANDIDATES].contiguous()
    return inputs


def beside_eager(exported: dict[str, ExportedDecision], rounds: int) -> str:
    """A table of one decision among 20 servers: the policy on a slot of one task, the module, and its exports."""
    scenario = Scenario.load("lad-ts")
    policy = bundled().for_scenario(scenario)
    td = with_recurrent_state(OffloadingEnv(scenario, [1], information="live"), policy).reset()
    td["agents", "valid"] = torch.zeros_like(td["agents", "valid"])
    td["agents", "valid"][0, 0, 0] = True
    decision = policy.decision()
    inputs = drawn(decision, 20)
    times = interleaved(
        {
            "policy(tensordict)": partial(policy, td),
            "module": partial(decision, *inputs.values()),
            **{name: partial(run, **inputs) for name, run in exported.items()},
        },
        rounds=rounds,
        clock=time.thread_time,
    )
    lines = [
        [name, f"{1e6 * t:.0f}", f"{t / times['module']:.3f}", f"{t / times['policy(tensordict)']:.3f}"]
        for name, t in times.items()
    ]
    return table(["one decision among 20 servers", "us", "of module", "of policy(tensordict)"], lines)


def agreement(servers: int = 1000, rows: int = 500) -> float:
    """How often candidates' decisions are those of prices that know the whole fleet, among the same candidates."""
    few, every = bundled(CANDIDATES).decision(), bundled().decision()
    inputs = drawn(few, servers, rows)
    of, up = inputs["candidates"], torch.ones(rows, servers, dtype=torch.bool)
    sums = {
        "servers_up": torch.full((rows,), float(servers)),
        "fleet_capacity_gcycles_per_s": inputs["capacity_gcycles_per_s"].sum(-1),
        "mean_tasks": inputs["tasks"].mean(-1),
        "mean_work_gcycles": inputs["work_gcycles"].mean(-1),
        "fleet_load_gcycles": inputs["load_gcycles"].sum(-1),
    }
    action = few(*{**inputs, **sums}.values())[0]
    wide = {n: torch.full((rows, servers), 1e6).scatter(-1, of, inputs[n]) for n in ("delay_s", "service_s")}
    known = {**inputs, **wide, "up": up}
    return (every(*(known[i.name] for i in every.inputs))[0] == action).double().mean().item()


def main() -> None:
    """Exports, times, prints, draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("runs/fleet_size.csv"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print(machine())
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        every, some = exports(bundled(), folder), exports(bundled(CANDIDATES), folder)
        print(beside_eager(every, options.rounds))
        calls = {}
        for name in FORMATS:
            for servers in SERVERS:
                calls[name, "all", servers] = partial(every[name], **drawn(bundled().decision(), servers))
                if servers > CANDIDATES:
                    inputs = drawn(bundled(CANDIDATES).decision(), servers)
                    calls[name, "some", servers] = partial(some[name], **inputs)
        times = {key: 1e6 * t for key, t in interleaved(calls, rounds=options.rounds, clock=time.thread_time).items()}
        same = agreement()
    columns = [(name, kind) for name in FORMATS for kind in ("all", "some")]
    lines = [[str(s), *(f"{times[n, k, s]:.0f}" if (n, k, s) in times else "-" for n, k in columns)] for s in SERVERS]
    heads = [f"{n}, {'all' if k == 'all' else CANDIDATES}" for n, k in columns]
    print(table(["us a decision; servers", *heads], lines))
    for name, kind in columns:
        growth = times[name, kind, 1000] / times[name, kind, 100]
        print(f"{name}, {kind}: from 100 to 1,000 servers {growth:.2f} times")
    print(f"{CANDIDATES} candidates of 1,000: {100 * same:.1f} % of decisions as by prices that know the whole fleet")
    rows = [[servers, name, "all" if kind == "all" else CANDIDATES, t] for (name, kind, servers), t in times.items()]
    write_csv(options.out, [["servers", "format", "candidates", "us_per_decision"], *rows])
    pictures.write(options.out, pictures.fleet_size)


if __name__ == "__main__":
    main()
