"""`OffPolicyModule`: rollouts into a replay buffer, and updates out of it, as a LightningModule."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from diffpolicy.environments.checks import check_policy
from diffpolicy.environments.cost import Cost
from diffpolicy.environments.tally import Tally
from diffpolicy.errors import InputError
from diffpolicy.networks.normalizer import RunningNorm
from diffpolicy.objectives.rows import wide
from diffpolicy.policies.choice import ChoicePolicy
from diffpolicy.policies.keys import Keys
from diffpolicy.training import distributed
from diffpolicy.training.replay import PackedReplay
from diffpolicy.training.stream import RolloutStream, counted_parts
from diffpolicy.training.trainable import Trainable, described, env_content, part_content, policy_content

Transitions = Callable[[TensorDictBase], TensorDict]


def keys_of(policy: ChoicePolicy, env: EnvBase) -> Keys:
    """What a policy reads and writes of an environment."""
    return Keys.of(
        env, action_key=policy.action_key, observation_keys=policy.observation_keys, mask_key=policy.mask_key
    )


class OffPolicyModule(Trainable):
    """Off-policy training of any policy by any objective: one training step is one rollout plus its updates.

    One epoch is one pass of the stream, an episode of each of its environments. The losses of an objective (its outputs
    `loss*`) are added and go through one optimiser with a learning rate for each of its groups.

    Args:
        policy: what acts.
        objective: a LossModule with `parameter_groups()` and `update_targets()`.
        stream: gives rollouts.
        replay: keeps transitions.
        transitions: makes transitions of a rollout; their batch dimension 1 counts the agents.
        tally: adds up what the passes cost, a column of the history; by default minus the rewards, an episode.
        learning_rates: by the name of the objective's group.
        batch_size: rows of an update, for each agent.
        updates: updates after each rollout.
        start_after: updates begin once every agent has more transitions than this.
    """

    policy: ChoicePolicy
    stream: RolloutStream

    def __init__(
        self,
        policy: ChoicePolicy,
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
    ) -> None:
        super().__init__()
        groups = list(objective.parameter_groups())
        if sorted(groups) != sorted(learning_rates):
            raise InputError(f"learning_rates must name {', '.join(groups)}, got {', '.join(learning_rates)}")
        for name, rate in learning_rates.items():
            if not 0 <= rate < float("inf"):
                raise InputError(f"learning_rates.{name} must be at least 0, got {rate}")
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("updates", updates, 0),
            ("start_after", start_after, 0),
        ):
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        # not submodules: the objective holds the policy's parameters, and they must not be saved twice
        self.__dict__.update(policy=policy, stream=stream)
        self.automatic_optimization = False
        self.objective, self.replay = objective, replay
        self.transitions = transitions
        if tally is None:
            keys = keys_of(policy, stream.base_env)
            tally = Tally(Cost(), keys.reward, keys.valid)
        self.tally = tally
        self.learning_rates = dict(learning_rates)
        self.batch_size, self.updates, self.start_after = batch_size, updates, start_after
        self.sharded, self.started, self.checked = False, False, False
        self.episodes = 0
        self.update_seconds = 0.0
        self._sums: dict[str, Tensor] = {}
        self._updates = 0
        self.history: list[dict[str, float]] = []

    @property
    def lanes(self) -> int:
        """Environments side by side."""
        return int(self.stream.base_env.batch_size.numel())

    def content(self) -> dict[str, Any]:
        """What can be seen of what it was built from."""
        return {
            "module": type(self),
            "environments": self.lanes,
            "episode_steps": self.stream.episode_steps,
            "rollout_steps": self.stream.steps,
            "env": env_content(self.stream.base_env),
            "policy": policy_content(self.policy),
            "objective": part_content(self.objective),
            "transitions": described(self.transitions),
            "learning_rates": self.learning_rates,
            "batch_size": self.batch_size,
            "updates": self.updates,
            "start_after": self.start_after,
            "capacity": self.replay.capacity,
        }

    def check(self) -> None:
        check_policy(self.policy, self.stream.env)
        if self.start_after >= self.replay.capacity:
            raise InputError(
                f"start_after must be below the replay's capacity {self.replay.capacity}, got {self.start_after}"
            )

    def remember(self) -> None:
        """What environment 0 remembers, into the policy."""
        self.stream.remember()

    def set_compiled(self, compiled: bool) -> None:
        """Whether updates run through `torch.compile`; for a whole run, since the roundings differ.

        It concerns objectives with a pure function `losses`; TorchRL's own, as for DQN, stay as they are.
        """
        self.compiled = compiled
        if compiled and hasattr(self.objective, "losses"):
            self.objective.__dict__["losses"] = torch.compile(type(self.objective).losses.__get__(self.objective))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = self.objective.parameter_groups()
        return torch.optim.Adam(
            [{"params": list(params), "lr": self.learning_rates[name]} for name, params in groups.items()],
            fused=True,
        )

    def train_dataloader(self) -> RolloutStream:
        return self.stream

    def on_train_start(self) -> None:
        self.objective.train()

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
            self._end_episode()

    def update(self, optimizer: Any) -> None:
        """One optimiser step on one batch."""
        batch = self.replay.sample(self.batch_size)
        losses = self.objective(batch)
        total = sum(v for k, v in losses.items() if k.startswith("loss"))
        if not torch.isfinite(total):
            raise FloatingPointError(self._first_bad(batch, losses))
        optimizer.zero_grad(set_to_none=True)
        if self.trainer.world_size > 1:
            self.manual_backward(total)  # through Lightning, which averages gradients over the processes
        else:
            total.backward()
        optimizer.step()
        self.objective.update_targets()
        self._updates += 1
        for key, value in losses.items():
            self._add(key, value.detach())

    def _check(self, rows: Any) -> None:
        """Refuses the first transitions if the objective cannot be trained on them; the replay compares later ones."""
        if not isinstance(rows, TensorDictBase):
            raise InputError(f"'transitions' must give a TensorDict, got {type(rows).__name__}")
        if hasattr(self.objective, "check_rows"):
            self.objective.check_rows(rows)
        self.checked = True

    def _may_update(self) -> bool:
        """Whether every agent, in every process, has enough transitions; once true it stays so."""
        if not self.started:
            enough = len(self.replay) > self.start_after
            self.started = bool(self.trainer.strategy.reduce_boolean_decision(enough, all=True))
        return self.started

    def _see(self, normalizer: RunningNorm, parts: list[TensorDict]) -> None:
        """Takes the valid observations of all processes into account."""
        seen = [wide(rows, "observation").flatten(0, -2) for rows in parts]
        valid = [
            x[rows["valid"].flatten()] if "valid" in rows.keys() else x for x, rows in zip(seen, parts, strict=True)
        ]
        moments = RunningNorm.moments(torch.cat(valid) if valid else normalizer.mean.new_zeros(0, len(normalizer.mean)))
        for each in distributed.gathered(moments):
            normalizer.update(each.to(normalizer.mean))

    def _first_bad(self, batch: TensorDict, losses: TensorDict) -> str:
        """Which tensor was the first that is not finite: what went in, then the parameters, then the losses."""
        named = [(f"batch {k}", v) for k, v in batch.items(True, True)]
        named += [(f"parameter {k}", v) for k, v in self.objective.named_parameters()]
        named += [(f"loss {k}", v) for k, v in losses.items()]
        for name, value in named:
            if value.is_floating_point() and not torch.isfinite(value).all():
                bad = value[~torch.isfinite(value)].flatten()[0].item()
                return f"training stopped in episode {self.episodes + 1}: {name} holds {bad}"
        return f"training stopped in episode {self.episodes + 1}: the sum of the losses is not finite"

    def _add(self, key: str, value: Tensor) -> None:
        self._sums[key] = self._sums[key] + value if key in self._sums else value

    def _end_episode(self) -> None:
        self.episodes += self.stream.base_env.batch_size.numel() * self.trainer.world_size
        cost, count = distributed.summed(
            torch.tensor(self.tally.take(self.stream.base_env.batch_size.numel()), dtype=torch.float64)
        ).tolist()
        row = {self.tally.cost.column: cost / max(count, 1)}
        updates = self._updates * self.trainer.world_size
        row |= {k: float(distributed.summed(v)) / updates for k, v in self._sums.items()}
        self._sums, self._updates = {}, 0
        self.log_dict({"episodes": float(self.episodes), **row}, on_step=True, on_epoch=False, batch_size=1)
        self.history.append({"episode": self.episodes, **row})

    def setup(self, stage: str) -> None:
        """Gives each process of a distributed run episodes and random numbers of its own."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        if world > 1 and not self.sharded:
            self.sharded = True
            self.stream.shard(rank, world)
            for generator in (self.policy.generator, self.replay.generator):
                generator.manual_seed(
                    int(np.random.SeedSequence((generator.initial_seed(), rank)).generate_state(1)[0])
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        mine = {"stream": self.stream.state_dict(), "policy": self.policy.get_extra_state()}
        if self.trainer.world_size > 1:
            mine["replay"] = dict(self.replay.state_dict())
        checkpoint["diffpolicy"] = {
            "processes": distributed.gathered_objects(mine),
            "episodes": self.episodes,
            "history": self.history,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["diffpolicy"]
        processes = state["processes"]
        mine = processes[self.trainer.global_rank]
        self.stream.load_state_dict(mine["stream"])
        self.policy.set_extra_state(mine["policy"])
        if "replay" in mine:  # the file's own state is the first process's
            own = {f"replay.{key}": value for key, value in mine["replay"].items()}
            generators = [key for key in checkpoint["state_dict"] if key.endswith("policy._extra_state")]
            checkpoint["state_dict"].update(own | dict.fromkeys(generators, mine["policy"]))
        self.episodes, self.history = state["episodes"], list(state["history"])
