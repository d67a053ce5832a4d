"""Deep Q-learning for one or a stack of agents: TorchRL's own loss on a `GreedyValuePolicy`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.modules import QValueModule
from torchrl.objectives import DQNLoss, HardUpdate, ValueEstimators

from diffpolicy.errors import InputError
from diffpolicy.policies.direct import GreedyValuePolicy


class StackedDQNLoss(DQNLoss):
    """`torchrl.objectives.DQNLoss` (Mnih et al. 2015) on rows `[M]` or `[G, M]`, summed over agents.

    Args:
        policy: its network gives the action values.
        gamma: discount. target_interval: updates between two copies to the target network.
        double: whether the online network chooses the target's action (van Hasselt et al. 2016).

    Keys: observation, action, reward, terminated, done; writes `loss`.
    """

    def __init__(
        self, policy: GreedyValuePolicy, *, gamma: float = 0.95, target_interval: int = 200, double: bool = False
    ) -> None:
        if target_interval < 1:
            raise InputError(f"target_interval must be at least 1, got {target_interval}")
        network = TensorDictSequential(
            TensorDictModule(policy.network, in_keys=["observation"], out_keys=["action_value"]),
            QValueModule(action_space="categorical"),
        )
        super().__init__(network, action_space="categorical", delay_value=True, double_dqn=double)
        self.make_value_estimator(ValueEstimators.TD0, gamma=gamma)
        self.agents = policy.agents or 1
        self.__dict__["policy"] = policy
        self.__dict__["_target"] = HardUpdate(
            self,
            value_network_update_interval=target_interval - 1,  # it copies one call after its counter is there
        )

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The loss of a batch of rows; reward `[.., M]`."""
        rows = tensordict.copy()
        policy = self.__dict__["policy"]
        for key in ("observation", ("next", "observation")):
            rows[key] = policy.normalized(rows[key])
        reward = rows["reward"].unsqueeze(-1)
        rows["next", "reward"] = reward
        for key in ("done", "terminated"):
            flag = rows.get(("next", key), None)
            none = reward.new_zeros(reward.shape, dtype=torch.bool)
            rows["next", key] = none if flag is None else flag.view(reward.shape)
        return super().forward(rows).apply(lambda loss: loss * self.agents)

    def update_targets(self) -> None:
        """Counts an update, and copies the network to the target when it is time."""
        self.__dict__["_target"].step()

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """What is optimised, by the name of its learning rate."""
        return {"critic": self.__dict__["policy"].parameters()}

    def get_extra_state(self) -> dict[str, int]:
        """Updates since the last copy to the target."""
        return {"counter": self.__dict__["_target"].counter}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Takes up what `get_extra_state` gave."""
        self.__dict__["_target"].counter = state["counter"]
