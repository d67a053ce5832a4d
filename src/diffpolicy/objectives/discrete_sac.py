"""Discrete soft actor-critic, for plain, diffusion and latent-action policies, one or a stack of agents."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives.common import LossModule

from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.objectives.rows import check_rows, next_key, row_masks, wide
from diffpolicy.policies.choice import ChoicePolicy


class LatentDiscreteSACLoss(LossModule):
    """Losses of actor, critics and temperature on transitions (s, x, a, r, s', x').

    With pi = softmax of the end of the chain from x (LAD-TS, arXiv 2412.18212; D2SAC, arXiv 2303.13052; without a
    chain discrete SAC, arXiv 1910.07207), H its entropy and Q the least of the ensemble:

    * critics: (Q_k(s, a) - r - gamma (1 - terminated) (sum_a pi'(a) Qbar(s', a) + alpha H(pi')))^2
    * actor: - alpha H(pi) - sum_a pi(a) Q(s, a), through the whole chain
    * temperature: alpha (H(pi) - target entropy), one alpha an agent

    Values are means over rows and sums over agents and critics, so each agent learns as if it were alone.

    Args:
        policy: gives `logits(observation, latent)`. critic: of width F, or F + A with `critic_latent`.
        gamma: discount. tau: share of the new parameters in the targets, each update.
        alpha: initial temperature.
        target_entropy: in nats (-1 as published, which no discrete entropy can reach), or "share": of each row
            `entropy_share` log(number of its allowed choices), log A without a mask.
        entropy: `conditional` on one chain's noise, as published, or `marginal`: of the mean over `samples` chains.
        samples: chains a row for the marginal entropy.
        target_actor: whether pi' comes from a slowly following copy of the policy, as in D2SAC.
        critic_latent: whether critics read x, without which Q(s) is not the value of what is played.
        reward_scale: factor on rewards before anything else; alpha is in units of scaled reward.

    Keys (see `set_keys`): observation, latent, action, reward, terminated, mask (of the next step too; needed if the
    policy reads masks); rows of batch `[M]`, or `[G, M]` for G agents; reward `[.., M]`. Writes loss_actor,
    loss_qvalue, loss_alpha, alpha, entropy. A row that allows nothing has value and entropy 0.
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
        policy: ChoicePolicy,
        critic: CriticEnsemble,
        *,
        gamma: float = 0.95,
        tau: float = 0.005,
        alpha: float = 0.05,
        target_entropy: float | Literal["share"] = -1.0,
        entropy_share: float = 0.5,
        entropy: Literal["conditional", "marginal"] = "conditional",
        samples: int = 8,
        target_actor: bool = False,
        critic_latent: bool = False,
        reward_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if entropy not in ("conditional", "marginal"):
            raise InputError(f"entropy must be conditional or marginal, got {entropy!r}")
        if not 0 < tau <= 1:
            raise InputError(f"tau must be greater than 0 and at most 1, got {tau}")
        if not alpha > 0:
            raise InputError(f"alpha must be greater than 0, got {alpha}")
        self.policy, self.critic = policy, critic
        self.target_critic = _frozen_copy(critic)
        self.target_policy = _frozen_copy(policy) if target_actor else None
        self.gamma, self.tau = gamma, tau
        self.entropy_share = entropy_share if target_entropy == "share" else None
        self.target_entropy = entropy_share * math.log(policy.choices) if target_entropy == "share" else target_entropy
        self.samples = samples if entropy == "marginal" else 1
        self.critic_latent, self.reward_scale = critic_latent, reward_scale
        self.reads_latent = bool(getattr(getattr(policy, "prior", None), "remembers", False))
        if critic_latent and not self.reads_latent:
            raise InputError("critic_latent needs a policy that remembers its actions")
        lead = () if policy.agents is None else (policy.agents, 1)
        self.log_alpha = nn.Parameter(torch.full(lead, math.log(alpha)))

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys read from the rows."""
        k = self.tensor_keys
        state: list[NestedKey] = [k.observation, *([k.latent] if self.reads_latent else [])]
        state += [] if self.policy.mask_key is None else [k.mask]
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

    def _noise(self, policy: ChoicePolicy, rows: torch.Size) -> Tensor | None:
        return policy.noise(torch.Size([*rows[:-1], rows[-1] * self.samples]))

    def _probabilities(
        self,
        policy: ChoicePolicy,
        observation: Tensor,
        latent: Tensor | None,
        mask: Tensor | None,
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Pi and log pi of rows, `[.., M, A]`; with several samples those of the mean over chains."""
        if self.samples == 1:
            log_p = policy.logits(observation, latent, mask, noise).log_softmax(-1)
            return _allowed(log_p.exp(), mask), log_p
        k, m = self.samples, observation.shape[-2]
        many = [None if x is None else x.repeat_interleave(k, -2) for x in (observation, latent, mask)]
        log_each = policy.logits(many[0], many[1], many[2], noise).log_softmax(-1)  # type: ignore[arg-type]
        log_p = log_each.unflatten(-2, (m, k)).logsumexp(-2) - math.log(k)
        return _allowed(log_p.exp(), mask), log_p

    def _entropy_target(self, mask: Tensor | None, like: Tensor) -> Tensor | float:
        """What the entropy of rows is held at, the mean over M. Args: mask: `[.., M, A]`. like: entropies."""
        if mask is None or self.entropy_share is None:
            return self.target_entropy
        target = self.entropy_share * mask.sum(-1).clamp_min(1).to(like).log()
        return target.mean(-1, keepdim=True).view_as(like)

    def _critic_input(self, observation: Tensor, latent: Tensor | None) -> Tensor:
        observation = self.policy.normalized(observation)
        return torch.cat([observation, latent], -1) if self.critic_latent and latent is not None else observation

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The losses of a batch of rows."""
        k = self.tensor_keys
        nxt = tensordict["next"]
        self.check_rows(tensordict)
        observation, next_observation = wide(tensordict, k.observation), wide(tensordict, next_key(k.observation))
        rows, dtype = observation.shape[:-1], self.policy.dtype
        mask, next_mask = row_masks(tensordict, k.mask, self.policy, rows)
        actor = self.policy if self.target_policy is None else self.target_policy
        terminated = nxt.get(k.terminated, None)
        losses = self.losses(
            observation=observation,
            next_observation=next_observation,
            latent=tensordict[k.latent] if self.reads_latent else None,
            next_latent=nxt[k.latent] if self.reads_latent else None,
            mask=mask,
            next_mask=next_mask,
            action=tensordict[k.action].view(rows).long(),
            reward=tensordict[k.reward].view(rows).to(dtype),
            terminated=None if terminated is None else terminated.view(rows).bool(),
            next_noise=self._noise(actor, rows),
            noise=self._noise(self.policy, rows),
        )
        return TensorDict(dict(zip(self.out_keys, losses, strict=True)))

    def losses(
        self,
        observation: Tensor,
        next_observation: Tensor,
        latent: Tensor | None,
        next_latent: Tensor | None,
        mask: Tensor | None,
        next_mask: Tensor | None,
        action: Tensor,
        reward: Tensor,
        terminated: Tensor | None,
        next_noise: Tensor | None,
        noise: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """What `forward` writes, in the order of `out_keys`: a pure function of rows, noise and parameters.

        Args:
            observation, next_observation: `[.., M, F]`. latent, next_latent: `[.., M, A]`, where they are read.
            mask, next_mask: allowed choices, bool `[.., M, A]`, or None.
            action, reward, terminated: `[.., M]`.
            next_noise, noise: what the policies' `noise` drew for the rows (times `samples`).
        """
        log_alpha = self.log_alpha
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            actor = self.policy if self.target_policy is None else self.target_policy
            p, log_p = self._probabilities(actor, next_observation, next_latent, next_mask, next_noise)
            least = self.target_critic(self._critic_input(next_observation, next_latent)).amin(0)
            value = (p * (least - alpha.unsqueeze(-1) * log_p)).sum(-1)
            if terminated is not None:
                value = value * ~terminated
            target = self.reward_scale * reward + self.gamma * value
        q = self.critic(self._critic_input(observation, latent))
        taken = q.gather(-1, action.expand(q.shape[:-1]).unsqueeze(-1)).squeeze(-1)
        loss_q = (taken - target).square().mean(-1).sum()

        p, log_p = self._probabilities(self.policy, observation, latent, mask, noise)
        negative_entropy = (p * log_p).sum(-1)
        cost = alpha * negative_entropy - (p * q.detach().amin(0)).sum(-1)
        entropy = -negative_entropy.detach().mean(-1, keepdim=True)
        if log_alpha.ndim == 0:
            entropy = entropy.squeeze(-1)
        loss_alpha = (log_alpha.exp() * (entropy - self._entropy_target(mask, entropy))).sum()
        return cost.mean(-1).sum(), loss_q, loss_alpha, alpha.mean(), entropy.mean()

    def update_targets(self) -> None:
        """Moves the targets by `tau` towards their networks (Polyak averaging); call it after each optimiser step."""
        pairs: list[tuple[nn.Module, nn.Module]] = [(self.target_critic, self.critic)]
        if self.target_policy is not None:
            pairs.append((self.target_policy, self.policy))
        with torch.no_grad():
            for target, source in pairs:
                torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), self.tau)

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """What is optimised, by the name of its learning rate."""
        return {
            "actor": self.policy.parameters(),
            "critic": self.critic.parameters(),
            "alpha": [self.log_alpha],
        }


def _frozen_copy(module: Any) -> Any:
    """A copy that is not trained; a policy's copy shares its generator, as one stream of both, and its normaliser."""
    shared = [getattr(module, "generator", None), getattr(module, "normalizer", None)]
    other = copy.deepcopy(module, {id(part): part for part in shared if part is not None})
    return other.requires_grad_(False)


def _allowed(p: Tensor, mask: Tensor | None) -> Tensor:
    """Chances with zeros where nothing is allowed; forbidden choices beside allowed ones have none anyway."""
    return p if mask is None else p * mask
