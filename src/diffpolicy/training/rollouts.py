"""`RolloutModule`: what the modules that learn from a stream of rollouts share, whatever they make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from diffpolicy.environments.checks import check_policy
from diffpolicy.environments.cost import Cost
from diffpolicy.environments.tally import Tally
from diffpolicy.networks.normalizer import RunningNorm
from diffpolicy.objectives.rows import wide
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.specs import keys_of
from diffpolicy.training import distributed
from diffpolicy.training.stream import RolloutStream
from diffpolicy.training.trainable import (
    Trainable,
    check_rates,
    described,
    env_content,
    part_content,
    policy_content,
)

Transitions = Callable[[TensorDictBase], TensorDict]


class RolloutModule(Trainable):
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

    policy: Policy
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
        super().__init__()
        check_rates(objective.parameter_groups(), learning_rates)
        # not submodules: the objective holds the policy's parameters, and they must not be saved twice
        self.__dict__.update(policy=policy, stream=stream)
        self.automatic_optimization = False
        self.objective, self.transitions = objective, transitions
        if tally is None:
            keys = keys_of(policy, stream.base_env)
            tally = Tally(Cost(), keys.reward, keys.valid)
        self.tally = tally
        self.learning_rates = dict(learning_rates)
        self.episodes = 0
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
        }

    def check(self) -> None:
        super().check()
        check_policy(self.policy, self.stream.env)

    def remember(self) -> None:
        """What environment 0 remembers, into the policy."""
        self.stream.remember()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = self.objective.parameter_groups()
        optimizer = torch.optim.Adam(
            [{"params": list(params), "lr": self.learning_rates[name]} for name, params in groups.items()],
            fused=True,
        )
        optimizer.register_load_state_dict_post_hook(_as_parameters_lie)
        return optimizer

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """A rollout stays as it is on a CPU, where Lightning would walk through its whole tree to copy nothing."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def train_dataloader(self) -> RolloutStream:
        return self.stream

    def on_train_start(self) -> None:
        self.objective.train()

    def total(self, batch: TensorDict, losses: TensorDict) -> Tensor:
        """The sum of an objective's losses.

        Raises:
            FloatingPointError: it is not finite; names the first bad tensor.
        """
        total: Tensor = sum(v for k, v in losses.items() if k.startswith("loss"))
        if not torch.isfinite(total):
            raise FloatingPointError(self._first_bad(batch, losses))
        return total

    def count(self, losses: TensorDict) -> None:
        """Takes an update into the means of the pass. Args: losses: what the objective wrote."""
        self._updates += 1
        for key, value in losses.items():
            value = value.detach()
            self._sums[key] = self._sums[key] + value if key in self._sums else value

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

    def _end_pass(self) -> None:
        """A row of the history: what the pass cost, and the means of what its updates wrote."""
        self.episodes += self.stream.base_env.batch_size.numel() * self.trainer.world_size
        cost, count = distributed.summed(
            torch.tensor(self.tally.take(self.stream.base_env.batch_size.numel()), dtype=torch.float64)
        ).tolist()
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


def _as_parameters_lie(optimizer: torch.optim.Optimizer) -> None:
    """Lets a loaded state lie in memory as its parameters do: the fused kernel goes by memory, not by strides."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)
