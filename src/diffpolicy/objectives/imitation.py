"""`ImitationLoss`: what losses share that make a policy decide as somebody else did."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives.common import LossModule

from diffpolicy.errors import InputError
from diffpolicy.objectives.rows import wide
from diffpolicy.policies.policy import Policy


class ImitationLoss(LossModule):
    """Base of losses on rows (s, a), a being an action to imitate; a subclass gives `imitate`.

    Behaviour cloning of a policy of any kind (Pomerleau 1991, doi:10.1162/neco.1991.3.1.88). `ImitationModule` takes
    `imitate` itself, and whatever trains on rows takes the loss.

    Args:
        policy: what is trained; without a memory, which only its own play would fill.

    Raises:
        InputError: the policy remembers its actions; in `forward`: a key is missing, or an observation of another
            width.

    Keys: observation `[.., M, F]`, action `[.., M, *event]` and, where the policy reads masks, action_mask; rows of
    batch `[M]`, or `[G, M]` for G agents, whose losses are added. Writes loss_actor.

    Example:
        >>> class Near(ImitationLoss):  # for actions that are numbers
        ...     def imitate(self, observation, action, mask=None):
        ...         law = self.policy.law(observation)
        ...         return (self.policy.head.mode(law) - action).square().mean()
        >>> head = BoundedHead(low=(0.0,), high=(1.0,))
        >>> policy = FeedforwardPolicy(choices=head.width, observation_dim=3, head=head)
        >>> Near(policy).imitate(torch.zeros(8, 3), torch.ones(8, 1)) > 0
        tensor(True)
    """

    out_keys = ["loss_actor"]  # noqa: RUF012 (TorchRL's attribute)

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        if policy.remembers:
            raise InputError(
                f"{type(self).__name__} trains policies without a memory, which only their own play would fill; use a "
                "GaussianPrior"
            )
        self.policy: Any = policy

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys read from the rows."""
        return ["observation", "action", *(["action_mask"] if self.policy.reading.masked else [])]

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        pass

    def check_rows(self, td: TensorDictBase) -> None:
        """Raises InputError if rows, or transitions that are to become rows, lack what is read. Args: td: any batch."""
        missing = [key for key in self.in_keys if td.get(key, None) is None]
        if missing:
            raise InputError(f"the rows do not give {', '.join(map(repr, missing))}, which the objective reads")
        width = wide(td, "observation").shape[-1]
        if width != self.policy.observation_dim:
            raise InputError(
                f"the rows' 'observation' must hold {self.policy.observation_dim} features of each, got {width}"
            )

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """What is optimised, by the name of its learning rate."""
        return {"actor": self.policy.parameters()}

    def update_targets(self) -> None:
        """Nothing follows slowly here."""

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The loss of a batch of rows.

        Args:
            tensordict: rows `[M]`, or `[G, M]` of G agents: observation `[.., M, F]`, action `[.., M, *event]` and,
                where the policy reads it, action_mask, bool `[.., M, W]`.
        """
        self.check_rows(tensordict)
        observation = wide(tensordict, "observation")
        mask = tensordict["action_mask"] if self.policy.reading.masked else None
        return TensorDict({"loss_actor": self.imitate(observation, self._existing(observation, tensordict), mask)})

    def _existing(self, observation: Tensor, rows: TensorDictBase) -> Tensor:
        """Actions with the first choice, the only one allowed, at joint items that do not exist."""
        action: Tensor = rows["action"]
        _, exists = self.policy.reading.apart(observation)
        if exists is None:
            return action
        return action.masked_fill(~exists.view(*exists.shape, *[1] * (action.ndim - exists.ndim)), 0)

    @abstractmethod
    def imitate(self, observation: Tensor, action: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of rows, a scalar; draws from the policy's generator.

        Args:
            observation: `[.., M, F]`. action: to be imitated, `[.., M, *event]`. mask: as the environment gives it,
                bool `[.., M, mask_width]`, or None.
        """
