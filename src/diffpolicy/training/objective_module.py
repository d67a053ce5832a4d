"""`ObjectiveModule`: what the modules share that lessen an objective's losses: one optimiser, sums, and what is bad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from diffpolicy.policies.policy import Policy
from diffpolicy.training.trainable import Trainable, check_rates


class ObjectiveModule(Trainable):
    """The losses of an objective, its outputs `loss*`, are added and go through one optimiser, Adam.

    Args:
        policy: what is trained. objective: a LossModule with `parameter_groups()`.
        learning_rates: by the name of the objective's group.
    """

    policy: Policy

    def __init__(self, policy: Policy, objective: Any, *, learning_rates: Mapping[str, float]) -> None:
        super().__init__()
        check_rates(objective.parameter_groups(), learning_rates)
        # not a submodule: the objective holds the policy's parameters, and they must not be saved twice
        self.__dict__.update(policy=policy)
        self.automatic_optimization = False
        self.objective = objective
        self.learning_rates = dict(learning_rates)
        self.episodes = 0
        self._sums: dict[str, Tensor] = {}
        self._updates = 0
        self.updates_made: int | None = 0
        self.history: list[dict[str, float]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = self.objective.parameter_groups()
        optimizer = torch.optim.Adam(
            [{"params": list(params), "lr": self.learning_rates[name]} for name, params in groups.items()],
            fused=True,
        )
        optimizer.register_load_state_dict_post_hook(_as_parameters_lie)
        return optimizer

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
        self.updates_made = (self.updates_made or 0) + 1
        for key, value in losses.items():
            value = value.detach()
            self._sums[key] = self._sums[key] + value if key in self._sums else value

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


def _as_parameters_lie(optimizer: torch.optim.Optimizer) -> None:
    """Lets a loaded state lie in memory as its parameters do: the fused kernel goes by memory, not by strides."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)
