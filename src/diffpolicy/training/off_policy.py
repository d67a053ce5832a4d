"""`OffPolicyModule`: rollouts into a replay buffer, and updates out of it, as a LightningModule."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy._seeds import derived
from diffpolicy.environments.tally import Tally
from diffpolicy.errors import InputError
from diffpolicy.objectives.protocols import PureLosses
from diffpolicy.objectives.rows import check_trainable
from diffpolicy.policies.policy import Policy
from diffpolicy.training.averaging import averaged
from diffpolicy.training.compiled import LossGraph
from diffpolicy.training.replay import PackedReplay
from diffpolicy.training.rollouts import RolloutModule, Transitions
from diffpolicy.training.stream import RolloutStream, counted_parts


class OffPolicyModule(RolloutModule):
    """Off-policy training of any policy by any objective: one training step is one rollout plus its updates.

    A method builds it of a problem; here its parts are joined by hand, so that any of them may be your own. The losses
    of the objective (its outputs `loss*`) are added and go through one optimiser, Adam.

    Args:
        policy: what acts.
        objective: a LossModule with `parameter_groups()` and `update_targets()`.
        stream: plays; its items are rollouts of the policy.
        replay: keeps transitions.
        transitions: makes transitions of a rollout, such as `step_transitions`; their batch dimension 1 counts the
            agents.
        tally: adds up what passes cost, a column of the history; None: minus the rewards of an episode.
        learning_rates: by the names of the objective's groups.
        batch_size: rows of an update, for each agent.
        updates: updates after each rollout.
        start_after: updates begin once every agent has more transitions than this.
        ema: decay of averaged weights, below 1, by which the policy then acts, is evaluated and is saved, while its
            objective goes on with its own; None: there is one set of weights. The module's `policy` is what acts.

    Raises:
        InputError: a number or a rate is out of range; in `fit`, before the first rollout: the parts do not fit.

    Example:
        >>> from diffpolicy.policies.keys import Keys
        >>> env, rates = Clinic(8), {"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3}
        >>> policy, keys = DiffusionPolicy.from_specs(env), Keys.of(env)
        >>> loss, replay = LatentDiscreteSACLoss(policy, CriticEnsemble(3, 3)), PackedReplay(1000, agents=None)
        >>> stream = RolloutStream(env, policy, episode_steps=50)
        >>> rows = lambda rollout: step_transitions(rollout, keys)
        >>> module = OffPolicyModule(policy, loss, stream, replay, rows, learning_rates=rates, start_after=300)
        >>> fit(module, episodes=8).history[-1]["episode"]
        8
    """

    def __init__(
        self,
        policy: Policy,
        objective: Any,
        stream: RolloutStream,
        replay: PackedReplay,
        transitions: Transitions,
        *,
        tally: Tally | None = None,
        learning_rates: Mapping[str, float],
        batch_size: int = 64,
        updates: int = 1,
        start_after: int = 300,
        ema: float | None = None,
    ) -> None:
        super().__init__(policy, objective, stream, transitions, tally=tally, learning_rates=learning_rates)
        self.batch_size = check.integer(batch_size, "batch_size", least=1)
        self.updates = check.integer(updates, "updates", least=0)
        self.start_after = check.integer(start_after, "start_after", least=0)
        self.averaged = None if ema is None else averaged(policy, ema)
        if self.averaged is not None:
            self.__dict__.update(learner=policy, policy=self.averaged.module)
            if stream.policy is policy:
                stream.policy = self.averaged.module
        self.ema = ema
        self.replay = replay
        self.sharded, self.started, self.checked = False, False, False
        self.update_seconds = 0.0
        self.graph: LossGraph | None = None

    def content(self) -> dict[str, Any]:
        return {
            **super().content(),
            "batch_size": self.batch_size,
            "updates": self.updates,
            "start_after": self.start_after,
            "capacity": self.replay.capacity,
            **({} if self.ema is None else {"ema": self.ema}),
        }

    def check(self) -> None:
        super().check()
        if self.start_after >= self.replay.capacity:
            raise InputError(
                f"start_after must be below the replay's capacity {self.replay.capacity}, got {self.start_after}"
            )

    def set_compiled(self, compiled: bool) -> None:
        """Whether updates run through `torch.compile`; for a whole run, since the roundings differ.

        It concerns objectives with a pure function `losses`; TorchRL's own, as for DQN, stay as they are. Losses and
        gradients are one graph (`LossGraph`). Several processes average gradients on the way back, so there only the
        losses are compiled.
        """
        self.compiled = compiled

    def _compile(self) -> None:
        """Prepares what is compiled, once it is known how many processes there are."""
        objective: Any = self.objective
        if not isinstance(objective, PureLosses):
            return
        if self.trainer.world_size == 1:
            self.graph = LossGraph(objective)
        else:
            objective.__dict__["losses"] = torch.compile(type(objective).losses.__get__(objective))

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.averaged is not None:
            self.averaged.train()
        if self.compiled:
            self._compile()

    def training_step(self, rollout: TensorDict, batch_idx: int) -> None:
        start = time.perf_counter()
        parts = [self.transitions(part) for part in counted_parts(rollout)]
        for rows in parts if not self.checked else ():
            self._check(rows)
        self.tally.add(rollout)
        if self.policy.normalizer is not None:
            self._see(self.policy.normalizer, parts)
        for rows in parts:
            self.replay.extend(rows, agent_dim=None if self.replay.agents is None else 1)
        optimizer: Any = self.optimizers()
        if self._may_update():
            for k in range(self.updates):
                # Lightning counts a step of its own wrapper; the others go to the optimiser itself, which is cheaper
                self.update(optimizer if k == 0 else optimizer.optimizer)
        self.update_seconds += time.perf_counter() - start
        if not self.stream.played:
            self._end_pass()

    def update(self, optimizer: Any) -> None:
        """One optimiser step on one batch."""
        batch = self.replay.sample(self.batch_size)
        losses = (self.objective if self.graph is None else self.graph)(batch)
        total = self.total(batch, losses)
        self._backward(total, optimizer)
        optimizer.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.__dict__["learner"])
        self.objective.update_targets()
        self.count(losses)

    def _backward(self, total: Tensor, optimizer: Any) -> None:
        """New gradients. Args: total: sum of the losses. optimizer: of the parameters."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # what `zero_grad` does, at ten times the cost of it
        if self.graph is not None:
            self.graph.give()
        if self.trainer.world_size > 1:
            self.manual_backward(total)  # through Lightning, which averages gradients over the processes
        elif total.requires_grad:
            total.backward()

    def _check(self, rows: Any) -> None:
        """Refuses the first transitions if the objective cannot be trained on them; the replay compares later ones."""
        if not isinstance(rows, TensorDictBase):
            raise InputError(f"'transitions' must give a TensorDict, got {type(rows).__name__}")
        check_trainable(self.objective, rows)
        self.checked = True

    def _may_update(self) -> bool:
        """Whether every agent, in every process, has enough transitions; once true it stays so."""
        if not self.started:
            enough = len(self.replay) > self.start_after
            self.started = bool(self.trainer.strategy.reduce_boolean_decision(enough, all=True))
        return self.started

    def finish(self) -> None:
        super().finish()
        if self.checked and self.updates and not self.started:
            warnings.warn(
                f"no update of {type(self.objective).__name__} was made, so nothing was learned: the replay holds "
                f"{len(self.replay)} transitions, and updates begin after start_after, {self.start_after}; play more "
                "episodes, or lower it",
                stacklevel=3,
            )

    def setup(self, stage: str) -> None:
        """Gives each process of a distributed run episodes and random numbers of its own."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        if world > 1 and not self.sharded:
            self.sharded = True
            self.stream.shard(rank, world)
            for purpose, generator in enumerate((self.policy.generator, self.replay.generator)):
                generator.manual_seed(derived(generator.initial_seed(), rank, purpose, bits=64))

    def state_of_process(self) -> dict[str, Any]:
        mine = super().state_of_process()
        if self.trainer.world_size > 1:
            mine["replay"] = dict(self.replay.state_dict())
        return mine

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        mine = checkpoint["diffpolicy"]["processes"][self.trainer.global_rank]
        if "replay" in mine:  # the file's own state is the first process's
            own = {f"replay.{key}": value for key, value in mine["replay"].items()}
            generators = [key for key in self._shares_draws() if key in checkpoint["state_dict"]]
            checkpoint["state_dict"].update(own | dict.fromkeys(generators, mine["policy"]))

    def _shares_draws(self) -> list[str]:
        """Keys under which a state holds where the policy's generator is: its own, and those of its copies."""
        parts = self.named_modules(remove_duplicate=False)
        same = [name for name, part in parts if getattr(part, "generator", None) is self.policy.generator]
        return [f"{name}._extra_state" for name in same]
