"""Pathwise gradients: any differentiable cost of a tensordict, and a policy's chances as a differentiable tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType
from torchrl.objectives.common import LossModule

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.objectives.action_losses import check_drops_nothing
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.policies.policy import Policy


class PathwiseLoss(LossModule):
    """A cost that depends on a policy's parameters through everything that was played: the pathwise derivative.

    Where an environment's steps are differentiable in what the policy gives (chances, vectors), the gradient of a
    whole episode's cost needs no critic and no score function (Heess et al. 2015, arXiv 1510.09142).

    Args:
        policy: whose parameters are optimised.
        cost: from what was played, with its gradients, to a scalar.
        in_keys: what the cost reads; needed only to call the loss with keyword arguments.

    Raises:
        InputError: the policy has a `condition_drop`; when called: the cost is no scalar.

    Writes loss_pathwise.

    Example:
        >>> policy, price = DiffusionPolicy.from_specs(Clinic(1)), torch.tensor([1.0, 1.0, 4.0])
        >>> loss = PathwiseLoss(policy, lambda td: (choice_probabilities(policy, td) @ price).mean())
        >>> losses = loss(Clinic(8).reset())
        >>> losses["loss_pathwise"].backward()
        >>> 1 < losses["loss_pathwise"].item() < 4, all(p.grad is not None for p in policy.denoiser.parameters())
        (True, True)
    """

    deterministic_sampling_mode = ExplorationType.RANDOM
    out_keys = ["loss_pathwise"]  # noqa: RUF012 (TorchRL's attribute)

    def __init__(
        self, policy: nn.Module, cost: Callable[[TensorDictBase], Tensor], *, in_keys: Sequence[NestedKey] = ()
    ) -> None:
        super().__init__()
        check_drops_nothing(policy, f"a {type(self).__name__}")
        self.policy, self.cost = policy, cost
        self._keys = list(in_keys)

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys read from what was played."""
        return self._keys

    @in_keys.setter
    def in_keys(self, values: Any) -> None:
        self._keys = list(values)

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        pass

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The cost of what was played."""
        cost = self.cost(tensordict)
        if cost.numel() != 1:
            raise InputError(f"a cost must be a scalar, got one of shape {list(cost.shape)}")
        return TensorDict({"loss_pathwise": cost.squeeze()})

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """What is optimised, by the name of its learning rate."""
        return {"actor": self.policy.parameters()}


def choice_probabilities(policy: Policy, td: TensorDictBase, *, temperature: float = 1.0) -> Tensor:
    """A policy's probabilities of each choice, softmax(logits / temperature), with their gradient.

    A diffusion policy's are those at the end of one chain of each item, with noise drawn from its own generator, and
    the gradient goes through the whole chain. Where no item is valid all chances are zero.

    Args:
        policy: without a memory.
        td: what it observes.
        temperature: above 0; 1 is what a policy that samples plays; below 1 comes nearer to one that takes the argmax.

    Returns:
        Chances `[*, A]` of the A choices of each item, in the policy's dtype.

    Raises:
        InputError: the policy remembers its actions, its head has no chances of single choices, or the temperature is
            not greater than 0.

    Example:
        >>> policy = FeedforwardPolicy.from_specs(Clinic(1))
        >>> chances = choice_probabilities(policy, Clinic(8).reset())
        >>> chances.shape, torch.allclose(chances.sum(-1), torch.ones(8))
        (torch.Size([8, 3]), True)
    """
    if policy.remembers:
        raise InputError("a policy with an ActionMemory has no probabilities of one step alone; use a GaussianPrior")
    if not isinstance(policy.head, CategoricalHead):
        raise InputError(
            f"choice_probabilities needs a CategoricalHead, of one choice an item, and this is a "
            f"{type(policy.head).__name__}"
        )
    check.number(temperature, "temperature", above=0)
    rows = policy.rows(td)
    observation = policy.read_observation(td, rows)
    logits = policy.logits(observation, mask=policy.read_mask(td, rows))
    return rows.put((logits / temperature).softmax(-1))
