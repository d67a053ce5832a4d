"""Discrete soft actor-critic, for plain, diffusion and latent-action policies, of one or of G agents."""

from __future__ import annotations

import math
from typing import Literal

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor
from typing_extensions import Unpack

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble, least
from diffpolicy.objectives.actor_critic import SoftActorCriticLoss, SoftActorCriticOptions
from diffpolicy.objectives.critics import check_critic
from diffpolicy.policies.policy import Policy


class LatentDiscreteSACLoss(SoftActorCriticLoss):
    """Losses of actor, critics and temperature on transitions (s, x, a, r, s', x').

    With pi = softmax of the end of the chain from x (LAD-TS, arXiv 2412.18212; D2SAC, arXiv 2303.13052; without a
    chain discrete SAC, arXiv 1910.07207), H its entropy and Q the least of the ensemble:

    * critics: (Q_k(s, a) - r - gamma (1 - terminated) (sum_a pi'(a) Qbar(s', a) + alpha H(pi')))^2
    * actor: - alpha H(pi) - sum_a pi(a) Q(s, a), through the whole chain
    * temperature: alpha (H(pi) - target entropy), one alpha an agent

    Values are means over rows and sums over agents and critics, so each agent learns as if it were alone.

    Args:
        policy: with a head whose joint choices are enumerated, A of them.
        critic: of width F, or F + W with `critic_latent`, and A outputs.
        target_entropy: in nats (-1 as published, which no discrete entropy can reach), or "share": of each row
            `entropy_share` log(number of its allowed choices), log A without a mask.
        entropy_share: of the greatest entropy, from 0 to 1; it counts where the target is "share".
        entropy: `conditional` on one chain's noise, as published, or `marginal`: of the mean over `samples` chains.
        samples: chains a row for the marginal entropy, at least 1.
        shared: gamma, tau, alpha, target_actor, critic_latent and reward_scale of `SoftActorCriticLoss`.

    Raises:
        InputError: an argument is out of range, the policy has a `condition_drop`, the head's choices cannot be
            enumerated, or the critic does not fit.

    Keys (see `set_keys`): observation, latent, action, reward, terminated, mask (of the next step too; needed if the
    policy reads masks); rows of batch `[M]`, or `[G, M]` for G agents; reward `[.., M]`. Writes loss_actor,
    loss_qvalue, loss_alpha, alpha, entropy. A row that allows nothing has value and entropy 0, and one whose action is
    -1, no choice, in any part has no part in the critics' loss.

    Example:
        >>> from tensordict import TensorDict
        >>> policy = DiffusionPolicy.from_specs(Clinic(1, masked=False), steps=5)
        >>> loss = LatentDiscreteSACLoss(policy, CriticEnsemble(3, 3), alpha=0.5, target_entropy="share")
        >>> state, chosen = {"observation": torch.zeros(8, 3)}, torch.zeros(8, dtype=torch.int64)
        >>> losses = loss(TensorDict({**state, "action": chosen, "reward": torch.zeros(8), "next": state}, [8]))
        >>> losses["loss_actor"].backward()
        >>> losses["alpha"].item(), all(p.grad is not None for p in policy.denoiser.parameters())
        (0.5, True)
    """

    def __init__(
        self,
        policy: Policy,
        critic: CriticEnsemble,
        *,
        target_entropy: float | Literal["share"] = -1.0,
        entropy_share: float = 0.5,
        entropy: Literal["conditional", "marginal"] = "conditional",
        samples: int = 8,
        **shared: Unpack[SoftActorCriticOptions],
    ) -> None:
        if entropy not in ("conditional", "marginal"):
            raise InputError(f"entropy must be conditional or marginal, got {entropy!r}")
        if target_entropy != "share":
            check.number(target_entropy, "target_entropy")
        check.number(entropy_share, "entropy_share", least=0, most=1)
        samples = check.integer(samples, "samples", least=1, most=_limits.DRAWN)
        choices = policy.head.joint
        super().__init__(policy, critic, **shared)
        self.head = policy.head
        check_critic(critic, policy, policy.observation_dim + self.critic_latent * policy.choices, choices)
        self.entropy_share = entropy_share if target_entropy == "share" else None
        self.target_entropy = entropy_share * math.log(choices) if target_entropy == "share" else target_entropy
        self.samples = samples if entropy == "marginal" else 1

    def _noise(self, policy: Policy, rows: torch.Size) -> Tensor | None:
        return policy.noise(torch.Size([*rows[:-1], rows[-1] * self.samples]))

    def _probabilities(
        self,
        policy: Policy,
        observation: Tensor,
        latent: Tensor | None,
        mask: Tensor | None,
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Pi and log pi of joint choices, `[.., M, A]`; with several samples those of the mean over chains."""
        if self.samples == 1:
            log_p = self.head.joint_log_prob(policy.law(observation, latent, mask, noise))
            return self._allowed(log_p.exp(), mask), log_p
        k, m = self.samples, observation.shape[-2]
        many = [None if x is None else x.repeat_interleave(k, -2) for x in (observation, latent, mask)]
        log_each = self.head.joint_log_prob(policy.law(many[0], many[1], many[2], noise))  # type: ignore[arg-type]
        log_p = log_each.unflatten(-2, (m, k)).logsumexp(-2) - math.log(k)
        return self._allowed(log_p.exp(), mask), log_p

    def _allowed(self, p: Tensor, mask: Tensor | None) -> Tensor:
        """Chances with zeros where nothing is allowed; forbidden choices beside allowed ones have none anyway."""
        return p if mask is None else p * self.head.joint_mask(mask)

    def _entropy_target(self, mask: Tensor | None, like: Tensor) -> Tensor | float:
        """What the entropy of rows is held at, the mean over M. Args: mask: `[.., M, A]`. like: entropies."""
        if mask is None or self.entropy_share is None:
            return self.target_entropy
        target = self.entropy_share * self.head.joint_mask(mask).sum(-1).clamp_min(1).to(like).log()
        return target.mean(-1, keepdim=True).view_as(like)

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The losses of a batch of rows, by the names in `out_keys`.

        Args:
            tensordict: transitions `[M]` or `[G, M]`, with the entries of `OffPolicyLoss.forward`.
        """
        read = self.read(tensordict)
        rows, action = read["observation"].shape[:-1], tensordict[self.tensor_keys.action]
        losses = self.losses(
            **read,
            action=self.head.joint_index(action.view(*rows, *self.head.event)),
            next_noise=self._noise(self.actor, rows),
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
            action: numbers of joint choices, int64 `[.., M]`, -1 of none. reward, terminated: `[.., M]`.
            next_noise, noise: what the policies' `noise` drew for the rows (times `samples`).
        """
        log_alpha = self.log_alpha
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            p, log_p = self._probabilities(self.actor, next_observation, next_latent, next_mask, next_noise)
            after = least(self.target_critic(self.critic_input(next_observation, next_latent)))
            value = (p * (after - alpha.unsqueeze(-1) * log_p)).sum(-1)
            target = self.backed_up(reward, value, terminated)
        q = self.critic(self.critic_input(observation, latent))
        taken = q.gather(-1, action.clamp_min(0).expand(q.shape[:-1]).unsqueeze(-1)).squeeze(-1)
        # nothing was chosen where the number is -1, so there is no value to correct
        loss_q = ((taken - target).square() * (action >= 0)).mean(-1).sum()

        p, log_p = self._probabilities(self.policy, observation, latent, mask, noise)
        negative_entropy = (p * log_p).sum(-1)
        cost = alpha * negative_entropy - (p * least(q.detach())).sum(-1)
        entropy = -negative_entropy.detach().mean(-1, keepdim=True)
        if log_alpha.ndim == 0:
            entropy = entropy.squeeze(-1)
        loss_alpha = self.temperature_loss(entropy, self._entropy_target(mask, entropy))
        return cost.mean(-1).sum(), loss_q, loss_alpha, alpha.mean(), entropy.mean()
