"""Deep Q-learning of one or of G agents: TorchRL's own loss on a `GreedyValuePolicy`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from tensordict.utils import NestedKey
from torch import nn
from torchrl.modules import QValueModule
from torchrl.objectives import DQNLoss, HardUpdate, ValueEstimators

from diffpolicy import _validate as check
from diffpolicy._deprecated import keep_old_names
from diffpolicy.objectives.rows import check_rows, nothing_follows, row_masks, wide
from diffpolicy.policies.direct import GreedyValuePolicy
from diffpolicy.policies.nested_keys import next_key


class AgentsDQNLoss(DQNLoss):
    """`torchrl.objectives.DQNLoss` (Mnih et al. 2015, doi:10.1038/nature14236) on rows `[M]` or `[G, M]`.

    With Q' an earlier copy of the network, the mean over rows, summed over agents, of

        (Q(s, a) - r - gamma (1 - terminated) max_b Q'(s', b))^2

    Args:
        policy: its network gives the action values.
        gamma: discount, from 0 to 1.
        target_interval: updates between two copies to the target network, at least 1.
        double: whether the online network chooses the target's action (van Hasselt et al. 2016, arXiv 1509.06461).

    Raises:
        InputError: a number is out of range; when called: the rows lack a key, or one has another shape.

    Keys: observation, action, reward, terminated, done, action_mask; writes `loss`. The target takes the best of the
    next step's allowed choices, `("next", "action_mask")`; both masks are needed if the policy reads masks. Where none
    is allowed the episode is over, and a row whose action is -1, no choice, in any part corrects no value.

    Example:
        >>> from tensordict import TensorDict
        >>> policy = GreedyValuePolicy.from_specs(Clinic(1, masked=False))
        >>> loss = AgentsDQNLoss(policy, gamma=0.0)  # so that a value is the reward that follows
        >>> state, chosen = {"observation": torch.ones(8, 3)}, torch.zeros(8, dtype=torch.int64)
        >>> reward = policy.network(torch.ones(8, 3))[:, 0].detach()
        >>> float(loss(TensorDict({**state, "action": chosen, "reward": reward, "next": state}, [8]))["loss"].detach())
        0.0
    """

    def __init__(
        self, policy: GreedyValuePolicy, *, gamma: float = 0.95, target_interval: int = 200, double: bool = False
    ) -> None:
        target_interval = check.integer(target_interval, "target_interval", least=1)
        check.number(gamma, "gamma", least=0, most=1)
        network = TensorDictSequential(
            TensorDictModule(policy.network, in_keys=["observation"], out_keys=["action_value"]),
            QValueModule(action_space="categorical", action_mask_key="action_mask"),
        )
        super().__init__(network, action_space="categorical", delay_value=True, double_dqn=double, reduction="none")
        self.make_value_estimator(ValueEstimators.TD0, gamma=gamma)
        self.agents = policy.agents or 1
        self.__dict__["policy"] = policy
        self.__dict__["_target"] = HardUpdate(
            self,
            value_network_update_interval=target_interval - 1,  # it copies one call after its counter is there
        )

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys read from the rows."""
        state = ["observation", *([] if not self.__dict__["policy"].reading.masked else ["action_mask"])]
        return ["action", "reward", *state, *map(next_key, state)]

    def check_rows(self, td: TensorDictBase) -> None:
        """Raises InputError if rows, or transitions that are to become rows, lack what is read. Args: td: any batch."""
        policy = self.__dict__["policy"]
        check_rows(td, self.in_keys, "observation", policy)
        row_masks(td, "action_mask", policy, wide(td, "observation").shape[:-1])

    def _check_new(self, td: TensorDictBase) -> None:
        """`check_rows` of rows of other shapes than the last ones, since an update is as short as the check."""
        keys = [*self.in_keys, "action_mask", ("next", "action_mask")]
        shapes = [td.batch_size, *(None if x is None else x.shape for x in (td.get(key, None) for key in keys))]
        if torch.compiler.is_compiling() or shapes != self.__dict__.get("_checked"):
            self.check_rows(td)
            self.__dict__["_checked"] = shapes

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The loss of a batch of rows.

        Args:
            tensordict: transitions `[M]`, or `[G, M]` of G agents: observation `[.., M, F]`, action `[.., M, *event]`
                and, where the policy reads it, action_mask, bool `[.., M, A]`; in `next` what followed, reward and
                terminated, both `[.., M]`.
        """
        policy = self.__dict__["policy"]
        self._check_new(tensordict)
        rows = tensordict.copy()
        for key in ("observation", ("next", "observation")):
            rows[key] = policy.condition(wide(tensordict, key))
        shape = rows["observation"].shape[:-1]
        action = policy.head.joint_index(rows["action"].view(*shape, *policy.head.event))
        rows["action"] = action.clamp_min(0)
        reward = rows["reward"].view(*shape, 1).to(policy.dtype)
        rows["next", "reward"] = reward
        _, allowed = row_masks(tensordict, "action_mask", policy, shape)
        # the value of what was done is read off whatever the mask says, so only the next one counts
        everything = torch.ones((), dtype=torch.bool, device=reward.device).expand(*shape, policy.choices)
        none = None if allowed is None else ~allowed.any(-1, keepdim=True)
        rows["action_mask"] = everything
        rows["next", "action_mask"] = everything if allowed is None or none is None else allowed | none
        for key in ("done", "terminated"):
            flag = nothing_follows(tensordict, key, shape)
            over = torch.zeros_like(reward, dtype=torch.bool) if flag is None else flag.unsqueeze(-1)
            rows["next", key] = over if none is None else over | none
        if rows.get(("next", "valid"), None) is not None:
            # the loss multiplies what follows by 0 where nothing does, and what is seen of no item may be no number
            rows["next", "observation"] = rows["next", "observation"].masked_fill(rows["next", "terminated"], 0.0)
        each = super().forward(rows)["loss"] * (action >= 0)  # `[.., M]`, weighted where the rows have weights
        weight = rows.get(self.tensor_keys.priority_weight, None)
        return TensorDict(loss=self.agents * (each.mean() if weight is None else each.sum() / weight.sum()))

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


keep_old_names(__name__)
