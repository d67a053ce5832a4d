"""What soft actor-critics share beside their critics: the temperature, and critics that read latents."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from typing_extensions import TypedDict

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.objectives.action_losses import check_drops_nothing
from diffpolicy.objectives.off_policy import OffPolicyLoss
from diffpolicy.objectives.rows import row_masks, wide
from diffpolicy.policies.nested_keys import next_key
from diffpolicy.policies.policy import Policy


class SoftActorCriticOptions(TypedDict, total=False):
    """Arguments of `SoftActorCriticLoss`, for the constructors of its subclasses."""

    gamma: float
    tau: float
    alpha: float
    target_actor: bool
    critic_latent: bool
    reward_scale: float


class Rows(TypedDict):
    """What both kinds of loss read of transitions, by the arguments of their `losses`; see there."""

    observation: Tensor
    next_observation: Tensor
    latent: Tensor | None
    next_latent: Tensor | None
    mask: Tensor | None
    next_mask: Tensor | None
    reward: Tensor
    terminated: Tensor | None


class SoftActorCriticLoss(OffPolicyLoss):
    """Base of soft actor-critic losses on transitions (s, x, a, r, s', x'); a subclass gives `forward`.

    Soft actor-critic (Haarnoja et al. 2018, arXiv 1801.01290) with two changes that latent actions ask for: x, where
    the policy's chain began, is part of the state, and each agent has a temperature of its own. Take
    `LatentDiscreteSACLoss` for choices and `LatentBoundedSACLoss` for vectors; this class is for a loss of your own.

    Args:
        policy: what is trained.
        critic: of what a subclass gives it to read.
        gamma: discount, from 0 to 1.
        tau: share of the new parameters in the targets, each update, above 0 and at most 1.
        alpha: initial temperature, above 0.
        target_actor: whether the next action's law comes from a slowly following copy of the policy, as in D2SAC.
        critic_latent: whether critics read x, without which Q(s) is not the value of what is played.
        reward_scale: factor on rewards before anything else; alpha is in units of scaled reward.

    Raises:
        InputError: a number is out of range, the policy has a `condition_drop`, or `critic_latent` with a policy that
            remembers nothing.

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
        check_drops_nothing(policy, f"a {type(self).__name__}")
        super().__init__(policy, critic, gamma=gamma, tau=tau, target_actor=target_actor, reward_scale=reward_scale)
        check.number(alpha, "alpha", above=0)
        self.critic_latent = critic_latent
        if critic_latent and not self.reads_latent:
            raise InputError("critic_latent needs a policy that remembers its actions")
        lead = () if policy.agents is None else (policy.agents, 1)
        self.log_alpha = nn.Parameter(torch.full(lead, math.log(alpha)))

    def read(self, tensordict: TensorDictBase) -> Rows:
        """Rows of transitions beside their actions. Args: tensordict: `[M]` or `[G, M]`; refused where it lacks any."""
        self.check_rows(tensordict)
        k, nxt = self.tensor_keys, tensordict["next"]
        observation, next_observation = wide(tensordict, k.observation), wide(tensordict, next_key(k.observation))
        rows = observation.shape[:-1]
        mask, next_mask = row_masks(tensordict, k.mask, self.policy, rows)
        return Rows(
            observation=observation,
            next_observation=next_observation,
            latent=tensordict[k.latent] if self.reads_latent else None,
            next_latent=nxt[k.latent] if self.reads_latent else None,
            mask=mask,
            next_mask=next_mask,
            reward=tensordict[k.reward].view(rows).to(self.policy.dtype),
            terminated=self.over(tensordict, rows),
        )

    def critic_input(self, observation: Tensor, latent: Tensor | None) -> Tensor:
        """What critics read of states, `[.., M, F]` or `[.., M, F + W]`. Args: both `[.., M, *]`."""
        observation = self.policy.normalized(observation)
        return torch.cat([observation, latent], -1) if self.critic_latent and latent is not None else observation

    def temperature_loss(self, entropy: Tensor, target: Tensor | float) -> Tensor:
        """Alpha (H - target), one alpha an agent, added up. Args: entropy: mean over rows, of `log_alpha`'s shape."""
        return (self.log_alpha.exp() * (entropy - target)).sum()

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """What is optimised, by the name of its learning rate."""
        return {**super().parameter_groups(), "alpha": [self.log_alpha]}
