"""What a GPU does for policies, environments, training and a pipeline: parity with the CPU, speeds, copies to the host.

python benchmarks/gpu.py --out runs/gpu.csv
python benchmarks/gpu.py --device cpu --quick       # whether it runs at all, in a minute

Every part stands alone: one that fails is a row that says why, and the others go on. Times are medians; the device is
waited for before each is read. `waits` counts how often the host had to wait for the device, which is what keeps small
steps slow.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn

from diffpolicy.edge import FleetPolicy, OffloadingEnv, Scenario, Server, Stream
from diffpolicy.edge.training import build
from diffpolicy.experiments.method_names import make_method
from diffpolicy.export import Decision
from diffpolicy.training.fit import fit
from timing import machine, table, write_csv


@dataclass(frozen=True)
class Row:
    """One figure. Args: part: of this benchmark. what: is measured. value: of it. unit: of the value."""

    part: str
    what: str
    value: float | str
    unit: str


@dataclass(frozen=True)
class Setting:
    """How much is measured. Args: device: where. quick: whether only to see that it runs."""

    device: torch.device
    quick: bool

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object], rounds: int = 10, warm: int = 2) -> float:
        """Median seconds of a call."""
        times = []
        with torch.no_grad():
            for k in range((1 if self.quick else rounds) + warm):
                self.wait()
                start = time.perf_counter()
                call()
                self.wait()
                if k >= warm:
                    times.append(time.perf_counter() - start)
        return median(times)

    def waits(self, call: Callable[[], object]) -> int | str:
        """How often the host waits for the device in a call."""
        if self.device.type != "cuda":
            return "not counted on the CPU"
        with synchronisations() as caught:
            call()
        return len(caught)


@contextmanager
def synchronisations() -> Iterator[list[warnings.WarningMessage]]:
    """Collects PyTorch's warnings of operations that wait for the GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            found: list[warnings.WarningMessage] = []
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
            found.extend(w for w in caught if "synchroniz" in str(w.message))


def parity(setting: Setting) -> Iterator[Row]:
    """Logits and choices of fresh policies, here and there, under the same draws."""
    scenario = Scenario.load("lad-ts")
    for name in ("lad-ts", "d2sac-ts", "sac-ts", "dqn-ts"):
        policy = build(name, scenario).policy
        rows = torch.Size([20, 16 if setting.quick else 5000])
        generator = torch.Generator().manual_seed(1)
        observation = 20 * torch.rand(*rows, policy.observation_dim, generator=generator)
        latent = torch.randn(*rows, policy.choices, generator=generator)
        noise = policy.noise(rows)
        with torch.no_grad():
            here = policy.logits(observation, latent, None, noise)
            moved = [None if x is None else x.to(setting.device) for x in (observation, latent, noise)]
            there = policy.to(setting.device).logits(moved[0], moved[1], None, moved[2]).cpu()
        yield Row("parity", f"{name}: largest difference of logits", float((here - there).abs().max()), "")
        same = (here.argmax(-1) == there.argmax(-1)).double().mean()
        yield Row("parity", f"{name}: choices that differ, of {rows.numel()}", float(1 - same), "")


def rollouts(setting: Setting) -> Iterator[Row]:
    """Valid decisions a second of `lad-ts` acting in its environment, both on the device."""
    for environments in (2, 4) if setting.quick else (64, 1024, 16384):
        scenario = Scenario.load("lad-ts")
        env = OffloadingEnv(scenario, [environments], stream=Stream.TRAINING, device=setting.device)
        module = make_method("lad-ts").build(env, episode_steps=scenario.slots or 1)
        module.policy.to(setting.device)
        stream = module.stream
        valid = float(stream.rollout()["agents", "valid"].sum())
        seconds = setting.seconds(stream.rollout, rounds=10 if environments < 10_000 else 3, warm=1)
        yield Row("rollout", f"{environments} environments", valid / seconds, "decisions/s")
        drawing = setting.seconds(lambda env=env: env.source.slot(env._episode, env._slot), rounds=3, warm=0)
        yield Row("rollout", f"{environments} environments: share of drawing arrivals", drawing / seconds, "")
        yield Row("rollout", f"{environments} environments: waits a slot", setting.waits(stream.rollout), "")


class Clock(L.Callback):
    """When each episode ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.times.append(time.perf_counter())


def training(setting: Setting) -> Iterator[Row]:
    """Milliseconds of a slot of training `lad-ts`: one rollout step and its update."""
    accelerator = "gpu" if setting.device.type == "cuda" else "cpu"
    slots = Scenario.load("lad-ts").slots or 1
    for compiled in (False,) if setting.quick else (False, True):
        module = build("lad-ts", Scenario.load("lad-ts"))
        clock = Clock()
        fit(module, episodes=2 if setting.quick else 5, accelerator=accelerator, compiled=compiled, callbacks=[clock])
        name = "compiled" if compiled else "eager"
        yield Row("training", f"lad-ts, {name}", 1e3 * float(np.diff(clock.times).min()) / slots, "ms a slot")
        last = module.history[-1]["delay_s"]
        yield Row("training", f"lad-ts, {name}: mean delay of the last episode", last, "s")


def decisions(setting: Setting) -> Iterator[Row]:
    """One decision, and a thousand at once."""
    single = build("lad-ts", Scenario.load("lad-ts")).policy.for_agent(0)
    decision = Decision(single).to(setting.device)
    yield from timed(setting, "lad-ts, 20 servers", decision, (1, 1000), {})
    live = FleetPolicy.pretrained("live").decision().to(setting.device)
    for servers in (20,) if setting.quick else (20, 100, 1000):
        yield from timed(setting, f"pretrained:live, {servers} servers", live, (1, 1000), {"servers": servers})


def timed(setting: Setting, name: str, decision: Any, batches: tuple[int, ...], sizes: dict[str, int]) -> Iterator[Row]:
    """A pure decision, eager and compiled."""
    ways: dict[str, nn.Module] = {"eager": decision}
    if not setting.quick:
        ways["compiled"] = torch.compile(decision, dynamic=False)  # type: ignore[assignment]
    for rows in batches:
        generator = torch.Generator().manual_seed(0)
        inputs = [i.random(rows, generator, **sizes).to(setting.device) for i in decision.inputs]
        for way, call in ways.items():
            seconds = setting.seconds(partial(call, *inputs), rounds=30, warm=3)
            yield Row("decision", f"{name}, {rows} at once, {way}", 1e6 * seconds, "us a call")


def growth(setting: Setting) -> Iterator[Row]:
    """A slot of decisions of `lad-ts` from 20 to 1,000 servers, in 64 environments."""
    base = Scenario.load("lad-ts")
    rng = np.random.default_rng(0)
    for count in (20,) if setting.quick else (20, 100, 300, 1000):
        fleet = tuple(Server(float(f), 450.0) for f in rng.integers(10, 51, count))
        scenario = replace(base, servers=fleet, stations=tuple(range(20)))
        env = OffloadingEnv(scenario, [2 if setting.quick else 64], stream=Stream.TRAINING, device=setting.device)
        module = make_method("lad-ts").build(env, episode_steps=scenario.slots or 1)
        module.policy.to(setting.device)
        seconds = setting.seconds(module.stream.rollout, rounds=5, warm=1)
        yield Row("growth", f"{count} servers", 1e3 * seconds, "ms a slot of 64 environments")


def pipeline(setting: Setting) -> Iterator[Row]:
    """The tiny SD3 pipeline's profile: its fit and its peak memory."""
    from diffpolicy.edge.hardware import DiffusersAdapter, Grid, profile

    server = DiffusersAdapter("tiny", device=str(setting.device))
    grid = Grid(steps=(2, 4) if setting.quick else (4, 10, 20), sizes=((64, 64),))
    result = profile(server, grid)
    for point in result.points:
        yield Row("pipeline", f"tiny SD3, {point.width}x{point.height}, {point.steps} steps", point.latency_s.p50, "s")
    if result.fit is not None:
        yield Row("pipeline", "tiny SD3: R^2 of the fit", result.fit.r2, "")


PARTS = (parity, rollouts, training, decisions, growth, pipeline)


def measured(setting: Setting, names: list[str]) -> Iterator[Row]:
    """All rows of the parts that are asked for; a part that fails gives one that says why."""
    for part in PARTS:
        if part.__name__ not in names:
            continue
        start = time.perf_counter()
        try:
            yield from part(setting)
        except Exception as error:  # one part's failure is a finding and must not cost the others
            reason = " ".join(str(error).split())[:200]
            yield Row(part.__name__, "failed", f"{type(error).__name__}: {reason}", "")
        yield Row(part.__name__, "the whole part took", time.perf_counter() - start, "s")


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    parser.add_argument("--parts", default=",".join(part.__name__ for part in PARTS))
    parser.add_argument("--out", type=Path, help="CSV file")
    options = parser.parse_args()
    setting = Setting(torch.device(options.device), options.quick)
    where = torch.cuda.get_device_name() if setting.device.type == "cuda" else "no GPU"
    print(f"{where}; {machine()}", flush=True)
    rows = []
    for row in measured(setting, options.parts.split(",")):
        rows.append(row)
        print(f"{row.part}: {row.what}: {row.value} {row.unit}", flush=True)
    shown = [[r.part, r.what, f"{r.value:,.4g}" if isinstance(r.value, float) else str(r.value), r.unit] for r in rows]
    print(table(["part", "what", "value", "unit"], shown))
    if options.out:
        write_csv(
            options.out,
            [["part", "what", "value", "unit", "device"], *([r.part, r.what, r.value, r.unit, where] for r in rows)],
        )


if __name__ == "__main__":
    main()
