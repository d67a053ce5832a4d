"""Training speed, side by side: this package, the obvious way, a loop of TorchRL losses, and the released code.

Each contender runs in a process of its own, with one thread, and is asked in turn for some slots of LAD-TS's main
setting: 20 agents, about 510 decisions and 20 updates a slot. Medians over the rounds, peak memory of each process.
Ratios of wall time tell what one waits for, and on a machine with other work they tell its moods too; ratios of the
processes' own CPU time do not.

    python benchmarks/training.py
    python benchmarks/training.py --released PATH      # the folder that holds main_lad.py of your own checkout
    python benchmarks/training.py --released PATH --csv docs/_static/training_speed.csv
    python benchmarks/training.py --released PATH --only --no-compile
    python benchmarks/training.py --parts              # where a slot's CPU time goes

What stands first is compiled, as `diffpolicy train --compile` trains; `eager` stands for the same without it.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch

from diffpolicy import _signals
from diffpolicy.edge import Scenario
from diffpolicy.edge.training import build
from diffpolicy.objectives.protocols import PureLosses
from diffpolicy.training.compiled import LossGraph
from diffpolicy.training.fit import fit, no_denormals
from timing import machine, peak_mib, table

SLOTS = 59
RELEASED_SLOTS = 4
"""Of a turn of the released code; a slot's number of tasks varies."""


@dataclass(frozen=True)
class Spent:
    """Seconds of a slot. Args: wall: on the clock. cpu: of the process."""

    wall: float
    cpu: float


class Clock:
    """Measures a turn from when it is made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def spent(self, slots: int) -> Spent:
        """Of each of so many slots since then."""
        return Spent((time.perf_counter() - self.wall) / slots, (time.process_time() - self.cpu) / slots)


class Turns(L.Callback):
    """Lets training go on for an episode whenever it is asked to, and tells how long a slot took."""

    def __init__(self, pipe: Connection, warm: int) -> None:
        self.pipe, self.warm, self.clock = pipe, warm, Clock()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch >= self.warm:
            wait(self.pipe)
        self.clock = Clock()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch >= self.warm:
            self.pipe.send(self.clock.spent(SLOTS))


def wait(pipe: Connection) -> None:
    """Until the next turn; ends the process when there is none, or when nobody is left to ask for one."""
    try:
        if pipe.recv() != "stop":
            return
        pipe.send(peak_mib())
        pipe.close()
    except (EOFError, OSError):
        os._exit(1)
    os._exit(0)


def package(pipe: Connection, method: str, compiled: bool) -> None:
    """This package, through its LightningModule."""
    module = build(method, Scenario.load("lad-ts"))
    fit(module, callbacks=[Turns(pipe, 2)], compiled=compiled)


def turns(pipe: Connection, slot: Callable[[], object], slots: int = 1) -> None:
    """Any contender that can be asked for a slot."""
    while True:
        wait(pipe)
        clock = Clock()
        for _ in range(slots):
            slot()
        pipe.send(clock.spent(slots))


def obvious(pipe: Connection) -> None:
    """One decision and one agent at a time."""
    from one_at_a_time import START, Training

    training = Training(Scenario.load("lad-ts"))
    while min(len(agent.replay) for agent in training.agents) <= START:
        training.play_slot()
    turns(pipe, training.play_slot, 2)


def torchrl_losses(pipe: Connection) -> None:
    """Stacked acting as in this package, and updates by a loop over 20 of TorchRL's losses."""
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.data.tensor_specs import Categorical
    from torchrl.modules import MLP, ProbabilisticActor, ValueOperator
    from torchrl.objectives import DiscreteSACLoss, SoftUpdate

    module = build("lad-ts", Scenario.load("lad-ts"))
    stacked, learners = module.policy, []
    for b in range(stacked.agents):
        single = stacked.for_agent(b).train()
        core = TensorDictModule(single.logits, in_keys=["observation", "latent"], out_keys=["logits"])
        core.single = single
        actor = ProbabilisticActor(
            core,
            in_keys=["logits"],
            out_keys=["action"],
            distribution_class=torch.distributions.Categorical,
            spec=Categorical(20),
        )
        critics = [
            ValueOperator(
                MLP(in_features=22, out_features=20, num_cells=[20, 20], activation_class=torch.nn.ReLU),
                in_keys=["observation"], out_keys=["action_value"],
            )
            for _ in range(2)
        ]  # fmt: skip
        loss = DiscreteSACLoss(
            actor,
            critics,
            action_space="categorical",
            num_actions=20,
            num_qvalue_nets=2,
            target_entropy=-1.0,
            alpha_init=0.05,
        )
        loss.make_value_estimator(gamma=0.95)
        params = [*core.single.parameters(), *loss.parameters()]
        learners.append(
            (loss, torch.optim.Adam({id(p): p for p in params}.values(), lr=1e-4), SoftUpdate(loss, tau=0.005))
        )

    def slot() -> None:
        rollout = module.stream.rollout()
        module.replay.extend(module.transitions(rollout), agent_dim=1)
        if len(module.replay) <= module.start_after:
            return
        batch = module.replay.sample(64)
        for b, (loss, optimizer, target) in enumerate(learners):
            rows = batch[b]
            done = torch.zeros(64, 1, dtype=torch.bool)
            step = TensorDict(
                {
                    "observation": rows["observation"], "latent": rows["latent"], "action": rows["action"],
                    "next": {
                        "observation": rows["next", "observation"], "latent": rows["next", "latent"],
                        "reward": rows["reward"].unsqueeze(-1), "done": done, "terminated": done,
                    },
                },
                batch_size=[64],
            )  # fmt: skip
            losses = loss(step)
            optimizer.zero_grad()
            (losses["loss_actor"] + losses["loss_qvalue"] + losses["loss_alpha"]).backward()
            optimizer.step()
            target.step()

    for _ in range(30):
        slot()
    turns(pipe, slot, 5)


def released(pipe: Connection, folder: str) -> None:
    """A user's own checkout of the released code: its slots are counted where it advances its queues."""
    os.chdir(folder)
    sys.path.insert(0, folder)
    import environment_lad

    kind = environment_lad.OffloadEnvironment
    advance, warm, done, clock = kind.update_proc_queues, 30, 0, Clock()

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal done, clock
        result = advance(*args, **kwargs)
        done += 1
        if done < warm or (done - warm) % RELEASED_SLOTS:
            return result
        if done > warm:
            pipe.send(clock.spent(RELEASED_SLOTS))
        wait(pipe)
        clock = Clock()
        return result

    kind.update_proc_queues = counted
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        runpy.run_path("main_lad.py", run_name="__main__")


def work(pipe: Connection, parent: int, contender: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """A contender's process. Args: parent: process id of who asks, with whom it ends."""
    _signals.end_with(parent)
    torch.set_num_threads(1)
    contender(pipe, *arguments)


class DiedError(Exception):
    """A contender's process ended before it was told to."""


class Contender:
    """A process that can be asked for slots. Args: name: of the table. contender, arguments: what it runs."""

    def __init__(self, name: str, contender: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        # a daemon: if this process fails, it does not wait for the others
        self.process = context.Process(target=work, args=(theirs, os.getpid(), contender, arguments), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self) -> None:
        """Starts a turn."""
        self._send("go")

    def answer(self) -> Spent:
        """Waits for the end of a turn; what a slot of it took."""
        spent: Spent = self._receive()
        return spent

    def stop(self) -> float:
        """Ends the process; its peak memory in MiB."""
        self._send("stop")
        peak: float = self._receive()
        self.process.join()
        return peak

    def _send(self, message: str) -> None:
        try:
            self.pipe.send(message)
        except OSError:
            raise self._died() from None

    def _receive(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None

    def _died(self) -> DiedError:
        self.process.join()
        return DiedError(
            f"the contender '{self.name}' ended with exit code {self.process.exitcode}; what it said is above"
        )


def rounds_of(groups: dict[str, Sequence[Contender]], rounds: int) -> dict[str, Spent]:
    """Medians of what a slot took, over rounds in which the groups take turns; a group's members play side by side.

    Args:
        groups: by the name of the table; k members that need s seconds a slot each give one every s / k seconds.
        rounds: turns of each.
    """
    turns: dict[str, list[Spent]] = {name: [] for name in groups}
    for number in range(rounds + 1):  # the first waits until all are warm
        for name, members in groups.items():
            for member in members:
                member.ask()
            spent = [member.answer() for member in members]
            if number:
                k = len(members) ** 2  # a mean over the members, each of which gives a share of the slots
                turns[name].append(Spent(sum(s.wall for s in spent) / k, sum(s.cpu for s in spent) / k))
    return {
        name: Spent(median(s.wall for s in of_name), median(s.cpu for s in of_name)) for name, of_name in turns.items()
    }


def measured(options: argparse.Namespace) -> list[dict[str, str]]:
    """A row of the table for each contender."""
    ours, compiled = f"diffpolicy {options.method}", not options.no_compile
    alone = [Contender(ours, package, options.method, compiled)]
    second = Contender(f"{ours}, second process", package, options.method, compiled)
    if compiled:
        alone.append(Contender(f"{ours}, eager", package, options.method, False))
    if not options.only:
        alone += [Contender("one at a time", obvious), Contender("loop of TorchRL losses", torchrl_losses)]
    if options.released:
        alone.append(Contender("released code", released, str(options.released.resolve())))
    both = f"{ours}, two processes"
    slots = rounds_of({**{c.name: [c] for c in alone}, both: [alone[0], second]}, options.rounds)
    second.stop()
    peaks = {c.name: c.stop() for c in alone}
    base = slots["released code" if options.released else ours]
    return [
        {
            "contender": name,
            "wall ms a slot": f"{1e3 * s.wall:.1f}",
            "CPU ms a slot": f"{1e3 * s.cpu:.1f}",
            "s a seed and episode": f"{SLOTS * s.wall:.3f}",
            "times as fast, wall": f"{base.wall / s.wall:.3g}",
            "times as fast, CPU": f"{base.cpu / s.cpu:.3g}",
            "peak MiB": f"{peaks[name]:.0f}" if name in peaks else "",
        }
        for name, s in slots.items()
    ]


def parts(method: str, slots: int = 200, *, compiled: bool = False) -> dict[str, float]:
    """Median CPU milliseconds of the parts of a slot, which are called one after the other, without Lightning."""
    torch.set_num_threads(1)
    module = build(method, Scenario.load("lad-ts"))
    optimizer, replay, objective = module.configure_optimizers(), module.replay, module.objective
    graph = LossGraph(objective) if compiled and isinstance(objective, PureLosses) else None
    spent: dict[str, list[float]] = {}

    def timed(part: str, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = call()
        spent.setdefault(part, []).append(1e3 * (time.process_time() - start))
        return result

    with no_denormals():
        for _ in range(30 + slots):
            rollout = timed("rollout", module.stream.rollout)
            rows = timed("transitions", lambda rollout=rollout: module.transitions(rollout))
            timed("into the replay", lambda rows=rows: replay.extend(rows, agent_dim=1))
            if len(replay) <= module.start_after:
                spent.clear()
                continue
            batch = timed("out of the replay", lambda: replay.sample(64))
            if graph is None:
                losses = timed("losses", lambda batch=batch: objective(batch))
                optimizer.zero_grad()
                timed("backward", module.total(batch, losses).backward)
            else:
                losses = timed("losses and gradients", lambda batch=batch: graph(batch))
                graph.give()
            timed("Adam", optimizer.step)
            timed("targets", objective.update_targets)
    return {part: median(times) for part, times in spent.items()}


def main() -> None:
    """Lets the contenders take turns, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--method", default="lad-ts-released", help="of this package")
    parser.add_argument("--released", type=Path, metavar="PATH", help="folder of main_lad.py")
    parser.add_argument("--no-compile", action="store_true", help="train without compilation")
    parser.add_argument("--only", action="store_true", help="leave out what is written here to compare with")
    parser.add_argument("--csv", type=Path, metavar="PATH", help="write the table there too")
    parser.add_argument("--parts", action="store_true", help="only where a slot's CPU time goes")
    options = parser.parse_args()
    if options.parts:
        spent = parts(options.method, compiled=not options.no_compile)
        rows_of_parts = [[name, f"{ms:.2f}", f"{ms / sum(spent.values()):.0%}"] for name, ms in spent.items()]
        print(f"{options.method}; {machine()}")
        print(table(["part of a slot", "CPU ms", "share"], rows_of_parts))
        return
    if options.released and not (options.released / "main_lad.py").is_file():
        parser.error(f"--released {options.released} holds no main_lad.py")
    try:
        rows = measured(options)
    except DiedError as error:
        sys.exit(f"training.py: {error}")
    torch.set_num_threads(1)
    print(f"lad-ts, 20 agents, 59 slots an episode, {options.rounds} rounds; {machine()}")
    print(f"times as fast as {'the released code' if options.released else 'diffpolicy ' + options.method}")
    print(table(list(rows[0]), [list(row.values()) for row in rows]))
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
