"""`RolloutModule`: what the modules that learn from a stream of rollouts share, whatever they make of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase

from diffpolicy.environments.checks import check_policy
from diffpolicy.environments.cost import Cost
from diffpolicy.environments.tally import Tally
from diffpolicy.networks.normalizer import RunningNorm
from diffpolicy.objectives.rows import wide
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.specs import keys_of
from diffpolicy.training import distributed
from diffpolicy.training.objective_module import ObjectiveModule
from diffpolicy.training.played_module import PlayedModule
from diffpolicy.training.stream import RolloutStream
from diffpolicy.training.trainable import described

Transitions = Callable[[TensorDictBase], TensorDict]


class RolloutModule(PlayedModule, ObjectiveModule):
    """Trains a policy by an objective on what a stream plays; a subclass says in `training_step` how.

    One epoch is one pass of the stream, an episode of each of its environments. The losses of the objective (its
    outputs `loss*`) are added and go through one optimiser with a learning rate for each of its groups.

    Args:
        policy: what acts.
        objective: a LossModule with `parameter_groups()`.
        stream: gives rollouts.
        transitions: makes transitions of a rollout; their batch dimension 1 counts the agents.
        tally: adds up what the passes cost, a column of the history; by default minus the rewards, an episode.
        learning_rates: by the name of the objective's group.
    """

    stream: RolloutStream

    def __init__(
        self,
        policy: Policy,
        objective: Any,
        stream: RolloutStream,
        transitions: Transitions,
        *,
        tally: Tally | None = None,
        learning_rates: Mapping[str, float],
    ) -> None:
        super().__init__(policy, objective, learning_rates=learning_rates)
        self.__dict__.update(stream=stream)
        self.transitions = transitions
        if tally is None:
            keys = keys_of(policy, stream.base_env)
            tally = Tally(Cost(), keys.reward, keys.valid)
        self.tally = tally

    @property
    def amid_pass(self) -> bool:
        return bool(self.stream.played)

    def content(self) -> dict[str, Any]:
        return {
            **super().content(),
            "episode_steps": self.stream.episode_steps,
            "rollout_steps": self.stream.steps,
            "transitions": described(self.transitions),
        }

    def check(self) -> None:
        super().check()
        check_policy(self.policy, self.stream.env)

    def remember(self) -> None:
        """What environment 0 remembers, into the policy."""
        self.stream.remember()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """A rollout stays as it is on a CPU, where Lightning would walk through its whole tree to copy nothing."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def train_dataloader(self) -> RolloutStream:
        return self.stream

    def _see(self, normalizer: RunningNorm, parts: list[TensorDict]) -> None:
        """Takes the valid observations of all processes into account."""
        seen = [wide(rows, "observation").flatten(0, -2) for rows in parts]
        valid = [
            x[rows["valid"].flatten()] if "valid" in rows.keys() else x for x, rows in zip(seen, parts, strict=True)
        ]
        moments = RunningNorm.moments(torch.cat(valid) if valid else normalizer.mean.new_zeros(0, len(normalizer.mean)))
        for each in distributed.gathered(moments):
            normalizer.update(each.to(normalizer.mean))

    def _end_pass(self) -> None:
        """A row of the history: what the pass cost, and the means of what its updates wrote."""
        self.episodes += self.stream.base_env.batch_size.numel() * self.trainer.world_size
        cost, count = distributed.summed(
            torch.tensor(self.tally.take(self.stream.base_env.batch_size.numel()), dtype=torch.float64)
        ).tolist()
        if not math.isfinite(cost):
            raise FloatingPointError(
                f"training stopped after episode {self.episodes}: what the environment gave as {self.tally.reward!r} "
                f"adds up to {-cost}"
            )
        row = {self.tally.cost.column: cost / max(count, 1)}
        updates = self._updates * self.trainer.world_size
        row |= {k: float(distributed.summed(v)) / updates for k, v in self._sums.items()}
        self._sums, self._updates = {}, 0
        # for the callbacks of a user; loggers hear of whole passes
        told = {"episodes": float(self.episodes), **row}
        self.log_dict(told, on_step=True, on_epoch=False, logger=False, batch_size=1)
        self.history.append({"episode": self.episodes, **row})

    def state_of_process(self) -> dict[str, Any]:
        """What a checkpoint holds of this process beside parameters: where its stream and its policy's draws are."""
        return {"stream": self.stream.state_dict(), "policy": self.policy.get_extra_state()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["diffpolicy"] = {
            "processes": distributed.gathered_objects(self.state_of_process()),
            "episodes": self.episodes,
            "history": self.history,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["diffpolicy"]
        mine = state["processes"][self.trainer.global_rank]
        self.stream.load_state_dict(mine["stream"])
        self.policy.set_extra_state(mine["policy"])
        self.episodes, self.history = state["episodes"], list(state["history"])
