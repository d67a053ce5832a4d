"""Training speed, side by side: this package, the obvious way, a loop of TorchRL losses, and the released code.

Each contender runs in a process of its own, with one thread, and is asked in turn for some slots of LAD-TS's main
setting: 20 agents, about 510 decisions and 20 updates a slot. Medians over the rounds, peak memory of each process.

    python benchmarks/training.py
    python benchmarks/training.py --released PATH      # the folder that holds main_lad.py of your own checkout
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch

from diffpolicy.edge import Scenario
from diffpolicy.edge.training import build
from diffpolicy.training.fit import fit
from timing import machine, peak_mib, table

SLOTS = 59


class Turns(L.Callback):
    """Lets training go on for an episode whenever it is asked to, and tells how long a slot took."""

    def __init__(self, pipe: Connection, warm: int) -> None:
        self.pipe, self.warm, self.started = pipe, warm, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch >= self.warm:
            wait(self.pipe)
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch >= self.warm:
            self.pipe.send((time.perf_counter() - self.started) / SLOTS)


def wait(pipe: Connection) -> None:
    """Until the next turn; ends the process when there is none."""
    if pipe.recv() == "stop":
        pipe.send(peak_mib())
        pipe.close()
        os._exit(0)


def package(pipe: Connection, method: str, compiled: bool) -> None:
    """This package, through its LightningModule."""
    module = build(method, Scenario.load("lad-ts"))
    fit(module, callbacks=[Turns(pipe, 2)], compiled=compiled)


def turns(pipe: Connection, slot: Callable[[], object], slots: int = 1) -> None:
    """Any contender that can be asked for a slot."""
    while True:
        wait(pipe)
        start = time.perf_counter()
        for _ in range(slots):
            slot()
        pipe.send((time.perf_counter() - start) / slots)


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
    advance, count, started = kind.update_proc_queues, [0], [0.0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        result = advance(*args, **kwargs)
        count[0] += 1
        if count[0] > 30:
            pipe.send(time.perf_counter() - started[0])
        if count[0] >= 30:
            wait(pipe)
        started[0] = time.perf_counter()
        return result

    kind.update_proc_queues = counted
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        runpy.run_path("main_lad.py", run_name="__main__")


def work(pipe: Connection, contender: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """A contender's process."""
    torch.set_num_threads(1)
    contender(pipe, *arguments)


class Contender:
    """A process that can be asked for slots."""

    def __init__(self, contender: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, contender, arguments))
        self.process.start()
        theirs.close()
        self.seconds: list[float] = []

    def ask(self) -> None:
        """Starts a turn."""
        self.pipe.send("go")

    def answer(self) -> None:
        """Waits for the end of a turn."""
        self.seconds.append(self.pipe.recv())

    def stop(self) -> float:
        """Ends the process; its peak memory in MiB."""
        self.pipe.send("stop")
        peak: float = self.pipe.recv()
        self.process.join()
        return peak


def main() -> None:
    """Lets the contenders take turns, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--method", default="lad-ts-released", help="of this package")
    parser.add_argument("--released", type=Path, metavar="PATH", help="folder of main_lad.py")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled run out")
    options = parser.parse_args()
    ours = f"diffpolicy {options.method}"
    contenders = {
        ours: Contender(package, options.method, False),
        "one at a time": Contender(obvious),
        "loop of TorchRL losses": Contender(torchrl_losses),
    }
    if not options.no_compile:
        contenders[f"{ours}, compiled"] = Contender(package, options.method, True)
    if options.released:
        contenders["released code"] = Contender(released, str(options.released.resolve()))
    for contender in contenders.values():  # a first turn each, which waits until all are warm
        contender.ask()
        contender.answer()
        contender.seconds.clear()
    for _ in range(options.rounds):
        for contender in contenders.values():
            contender.ask()
            contender.answer()
    pairs = []
    second = Contender(package, options.method, False)
    second.ask()
    second.answer()
    for _ in range(options.rounds):
        for contender in (contenders[ours], second):
            contender.ask()
        for contender in (contenders[ours], second):
            contender.answer()
        pairs.append((contenders[ours].seconds.pop() + second.seconds.pop()) / 4)
    second.stop()
    slots = {name: median(contender.seconds) for name, contender in contenders.items()}
    peaks = {name: contender.stop() for name, contender in contenders.items()}
    slots[f"{ours}, two processes"] = median(pairs)
    rows = [
        [
            name,
            f"{1e3 * s:.1f}",
            f"{SLOTS * s:.3f}",
            f"{s / slots[ours]:.2f}",
            f"{peaks[name]:.0f}" if name in peaks else "",
        ]
        for name, s in slots.items()
    ]
    torch.set_num_threads(1)
    print(f"lad-ts, 20 agents, 59 slots an episode, {options.rounds} rounds; {machine()}")
    print(table(["contender", "ms a slot", "s a seed and episode", f"times {ours}", "peak MiB"], rows))


if __name__ == "__main__":
    main()
