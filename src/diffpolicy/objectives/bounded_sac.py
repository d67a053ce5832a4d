"""Soft actor-critic for vectors, within bounds or of shares, for plain, diffusion and latent-action policies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor
from torch.func import functional_call
from typing_extensions import Unpack

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.objectives.actor_critic import SoftActorCriticLoss, SoftActorCriticOptions
from diffpolicy.objectives.critics import check_critic
from diffpolicy.policies.draws import generator_on
from diffpolicy.policies.policy import Policy


class LatentBoundedSACLoss(SoftActorCriticLoss):
    """Losses of actor, critics and temperature on transitions (s, x, a, r, s', x') with vector actions.

    The law of an action is squashed normal, or logistic-normal where it is shares, of which a mask may forbid some; its
    mean and spread are the end of the chain, so that its gradient goes through the whole chain (Haarnoja et al. 2018,
    arXiv 1812.05905; with a `GaussianPrior` the continuous form of D2SAC, arXiv 2303.13052). With a, log pi drawn
    pathwise and Q the least of the ensemble:

    * critics: (Q_k(s, a) - r - gamma (1 - terminated) (Qbar(s', a') - alpha log pi(a')))^2
    * actor: alpha log pi(a) - Q(s, a)
    * temperature: alpha (-log pi - target entropy), one alpha an agent

    Values are means over rows and sums over agents and critics. Entropies are conditional on one chain's noise; a row
    that allows nothing has value 0, and its entropy is left out.

    Args:
        policy: with a `BoundedHead` or a `SimplexHead`, of one item or of joint ones.
        critic: of width F + D (+ W with `critic_latent`) and one output; it reads actions scaled to [-1, 1].
        target_entropy: in nats of actions scaled to [-1, 1], or `auto`: minus the number of those that are free, D
            within bounds; of shares of n allowed choices as far below the greatest entropy, n - 1 times 1 + log 2.
        shared: gamma, tau, alpha, target_actor, critic_latent and reward_scale of `SoftActorCriticLoss`.

    Raises:
        InputError: an argument is out of range, the draw of the policy's head has no gradient, the policy has a
            `condition_drop`, or the critic does not fit.

    Example:
        >>> from tensordict import TensorDict
        >>> head = BoundedHead(low=(0.0, 0.0), high=(1.0, 4.0))
        >>> policy = DiffusionPolicy(choices=head.width, observation_dim=3, head=head)
        >>> loss = LatentBoundedSACLoss(policy, CriticEnsemble(3 + 2, 1))
        >>> state = {"observation": torch.zeros(8, 3)}
        >>> rows = TensorDict({**state, "action": torch.ones(8, 2), "reward": torch.zeros(8), "next": state}, [8])
        >>> losses = loss(rows)
        >>> sorted(losses.keys())
        ['alpha', 'entropy', 'loss_actor', 'loss_alpha', 'loss_qvalue']
    """

    def __init__(
        self,
        policy: Policy,
        critic: CriticEnsemble,
        *,
        target_entropy: float | Literal["auto"] = "auto",
        **shared: Unpack[SoftActorCriticOptions],
    ) -> None:
        if policy.head.expectation != "pathwise":
            raise InputError(f"this loss needs a BoundedHead or a SimplexHead, got a {type(policy.head).__name__}")
        super().__init__(policy, critic, **shared)
        self.head = policy.head
        state = policy.observation_dim + self.critic_latent * policy.choices
        check_critic(critic, policy, state + self.head.feature_width, 1)
        self.target_entropy = None if target_entropy == "auto" else check.number(target_entropy, "target_entropy")

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
            action=action.to(self.policy.dtype),
            next_noise=self.actor.noise(rows),
            noise=self.policy.noise(rows),
            next_draws=self._normal(rows),
            draws=self._normal(rows),
        )
        return TensorDict(dict(zip(self.out_keys, losses, strict=True)))

    def _normal(self, rows: torch.Size) -> Tensor:
        generator = generator_on(self.policy.generator, self.policy.device)
        return torch.randn(*rows, *self.head.event, generator=generator, device=generator.device).to(self.policy.dtype)

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
        next_draws: Tensor,
        draws: Tensor,
    ) -> tuple[Tensor, ...]:
        """What `forward` writes, in the order of `out_keys`: a pure function of rows, draws and parameters.

        Args:
            observation, next_observation: `[.., M, F]`. latent, next_latent: `[.., M, W]`, where they are read.
            mask, next_mask: allowed choices, bool `[.., M, W]`, or None.
            action: `[.., M, *event]`. reward, terminated: `[.., M]`.
            next_noise, noise: what the policies' `noise` drew. next_draws, draws: of N(0, 1), `[.., M, *event]`.
        """
        log_alpha = self.log_alpha
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            law = self.actor.law(next_observation, next_latent, next_mask, next_noise)
            chosen, log_p = self.head.with_log_prob(law, next_draws)
            least = self._values(self.target_critic, next_observation, next_latent, chosen).amin(0)
            value = self._counted(least - alpha * log_p, next_mask)
            target = self.backed_up(reward, value, terminated)
        loss_q = (self._values(self.critic, observation, latent, action) - target).square().mean(-1).sum()

        law = self.policy.law(observation, latent, mask, noise)
        chosen, log_p = self.head.with_log_prob(law, draws)
        # the actor's loss moves the actor alone
        still = {name: p.detach() for name, p in self.critic.named_parameters()}
        critic = partial(functional_call, self.critic, still)
        cost = alpha * log_p - self._values(critic, observation, latent, chosen).amin(0)
        cost = self._counted(cost, mask)
        # where nothing can be chosen there is no entropy to hold
        counted = None if mask is None else self.head.allows(mask).to(log_p)
        entropy = self._mean(-log_p.detach(), log_alpha, counted)
        volume = self._mean(self.head.log_volume(law.detach()), log_alpha, counted)
        target_entropy = self._mean(self._entropy_target(law.detach()), log_alpha, counted)
        loss_alpha = self.temperature_loss(entropy, target_entropy + volume)
        return cost.mean(-1).sum(), loss_q, loss_alpha, alpha.mean(), (entropy - volume).mean()

    def _entropy_target(self, law: Tensor) -> Any:
        """What the entropy of scaled actions is held at, of rows `[.., M]` or of all. Args: law: of rows."""
        return -self.head.freedom(law) if self.target_entropy is None else self.target_entropy

    def _mean(self, each: Any, like: Tensor, counted: Tensor | None) -> Any:
        """The mean over the rows that count, of the shape of `like`, or what all rows have; 0 where none counts.

        Args:
            each: `[.., M]`, or a number. counted: 1 or 0 of rows, `[.., M]`; None where all count.
        """
        if counted is None:
            return each.mean(-1, keepdim=True).view_as(like) if isinstance(each, Tensor) else each
        return ((each * counted).sum(-1, keepdim=True) / counted.sum(-1, keepdim=True).clamp_min(1)).view_as(like)

    def _counted(self, value: Tensor, mask: Tensor | None) -> Tensor:
        """Values of rows, 0 where nothing is allowed. Args: value: `[.., M]`. mask: bool `[.., M, W]`, or None."""
        return value if mask is None else value * self.head.allows(mask)

    def _values(
        self, critic: Callable[[Tensor], Tensor], observation: Tensor, latent: Tensor | None, action: Tensor
    ) -> Tensor:
        """Q of pairs, `[ensemble, .., M]`."""
        state = self.critic_input(observation, latent)
        return critic(torch.cat([state, self.head.features(action)], -1)).squeeze(-1)
