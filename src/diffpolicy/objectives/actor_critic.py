"""What soft actor-critics share: critics and their targets, the temperature, and what is optimised."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives.common import LossModule
from typing_extensions import TypedDict

from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.objectives.rows import check_rows, next_key, row_masks, wide
from diffpolicy.policies.policy import Policy


class SoftActorCriticOptions(TypedDict, total=False):
    """Arguments of `SoftActorCriticLoss`, for the constructors of its subclasses."""

    gamma: float
    tau: float
    alpha: float
    target_actor: bool
    critic_latent: bool
    reward_scale: float


class SoftActorCriticLoss(LossModule):
    """Base of soft actor-critic losses on transitions (s, x, a, r, s', x'); a subclass gives `forward`.

    Soft actor-critic (Haarnoja et al. 2018, arXiv 1801.01290) with two changes that latent actions ask for: x, where
    the policy's chain began, is part of the state, and each agent of a stack has a temperature of its own. Take
    `LatentDiscreteSACLoss` for choices and `LatentBoundedSACLoss` for vectors; this class is for a loss of your own.

    Args:
        policy: what is trained.
        critic: of what a subclass gives it to read.
        gamma: discount.
        tau: share of the new parameters in the targets, each update.
        alpha: initial temperature.
        target_actor: whether the next action's law comes from a slowly following copy of the policy, as in D2SAC.
        critic_latent: whether critics read x, without which Q(s) is not the value of what is played.
        reward_scale: factor on rewards before anything else; alpha is in units of scaled reward.

    Raises:
        InputError: a number is out of range, or `critic_latent` with a policy that remembers nothing.

    Example:
        >>> policy = FeedforwardPolicy.from_specs(Clinic(1))
        >>> loss = LatentDiscreteSACLoss(policy, CriticEnsemble(3, 3), tau=1.0)
        >>> isinstance(loss, SoftActorCriticLoss), sorted(loss.parameter_groups())
        (True, ['actor', 'alpha', 'critic'])
        >>> loss.update_targets()  # all of the way, as tau is 1
        >>> rows = torch.ones(5, 3)
        >>> torch.equal(loss.target_critic(rows), loss.critic(rows))
        True
    """

    @dataclass
    class _AcceptedKeys:
        observation: NestedKey = "observation"
        latent: NestedKey = "latent"
        action: NestedKey = "action"
        reward: NestedKey = "reward"
        terminated: NestedKey = "terminated"
        mask: NestedKey = "action_mask"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    out_keys = ["loss_actor", "loss_qvalue", "loss_alpha", "alpha", "entropy"]  # noqa: RUF012 (TorchRL's attribute)

    def __init__(
        self,
        policy: Policy,
        critic: CriticEnsemble,
        *,
        gamma: float = 0.95,
        tau: float = 0.005,
        alpha: float = 0.05,
        target_actor: bool = False,
        critic_latent: bool = False,
        reward_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < tau <= 1:
            raise InputError(f"tau must be greater than 0 and at most 1, got {tau}")
        if not alpha > 0:
            raise InputError(f"alpha must be greater than 0, got {alpha}")
        self.policy, self.critic = policy, critic
        self.target_critic = _frozen_copy(critic)
        self.target_policy = _frozen_copy(policy) if target_actor else None
        self.gamma, self.tau = gamma, tau
        self.critic_latent, self.reward_scale = critic_latent, reward_scale
        self.reads_latent = policy.remembers
        if critic_latent and not self.reads_latent:
            raise InputError("critic_latent needs a policy that remembers its actions")
        lead = () if policy.agents is None else (policy.agents, 1)
        self.log_alpha = nn.Parameter(torch.full(lead, math.log(alpha)))

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys read from the rows."""
        k = self.tensor_keys
        state: list[NestedKey] = [k.observation, *([k.latent] if self.reads_latent else [])]
        state += [] if not self.policy.reading.masked else [k.mask]
        return [k.action, k.reward, *state, *map(next_key, state)]

    @in_keys.setter
    def in_keys(self, values: Any) -> None:
        raise AttributeError("use set_keys")

    def check_rows(self, td: TensorDictBase) -> None:
        """Raises InputError if rows, or transitions that are to become rows, lack what is read. Args: td: any batch."""
        k = self.tensor_keys
        check_rows(td, self.in_keys, k.observation, self.policy)
        row_masks(td, k.mask, self.policy, wide(td, k.observation).shape[:-1])

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        pass

    @property
    def actor(self) -> Policy:
        """Whose law gives the next action: the target's, if there is one."""
        return self.policy if self.target_policy is None else self.target_policy

    def critic_input(self, observation: Tensor, latent: Tensor | None) -> Tensor:
        """What critics read of states, `[.., M, F]` or `[.., M, F + W]`. Args: both `[.., M, *]`."""
        observation = self.policy.normalized(observation)
        return torch.cat([observation, latent], -1) if self.critic_latent and latent is not None else observation

    def temperature_loss(self, entropy: Tensor, target: Tensor | float) -> Tensor:
        """Alpha (H - target), one alpha an agent, added up. Args: entropy: mean over rows, of `log_alpha`'s shape."""
        return (self.log_alpha.exp() * (entropy - target)).sum()

    def update_targets(self) -> None:
        """Moves the targets by `tau` towards their networks (Polyak averaging); call it after each optimiser step."""
        pairs: list[tuple[nn.Module, nn.Module]] = [(self.target_critic, self.critic)]
        if self.target_policy is not None:
            pairs.append((self.target_policy, self.policy))
        with torch.no_grad():
            for target, source in pairs:
                torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), self.tau)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """The parts, and by TorchRL's names the parameters of targets, which its updaters (`SoftUpdate`) look for here.

        They are views: `children` and the state are as without them. Use an updater or `update_targets`, not both.
        """
        yield from super().named_children()
        yield "target_critic_params", parameters_of(self.target_critic)
        if self.target_policy is not None:
            yield "target_policy_params", parameters_of(self.target_policy)

    def children(self) -> Iterator[nn.Module]:
        """The parts."""
        return (part for _, part in super().named_children())

    @property
    def critic_params(self) -> TensorDictParams:
        """Of the critics, by TorchRL's name."""
        return parameters_of(self.critic)

    @property
    def target_critic_params(self) -> TensorDictParams:
        """Of the critics' targets."""
        return parameters_of(self.target_critic)

    @property
    def policy_params(self) -> TensorDictParams:
        """Of the policy."""
        return parameters_of(self.policy)

    @property
    def target_policy_params(self) -> TensorDictParams:
        """Of the policy's target, if there is one."""
        if self.target_policy is None:
            raise AttributeError("target_policy_params: there is no target of the policy without target_actor")
        return parameters_of(self.target_policy)

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """What is optimised, by the name of its learning rate."""
        return {
            "actor": self.policy.parameters(),
            "critic": self.critic.parameters(),
            "alpha": [self.log_alpha],
        }


def parameters_of(module: nn.Module) -> TensorDictParams:
    """A module's parameters as TorchRL holds them, the same tensors. Args: module: whose they are."""
    return TensorDictParams(TensorDict(dict(module.named_parameters())), no_convert=True)


def _frozen_copy(module: Any) -> Any:
    """A copy that is not trained; a policy's shares its generator, so that no draw repeats, and its normaliser."""
    shared = [getattr(module, "generator", None), getattr(module, "normalizer", None)]
    other = copy.deepcopy(module, {id(part): part for part in shared if part is not None})
    return other.requires_grad_(False)
