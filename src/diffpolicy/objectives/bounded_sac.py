"""Soft actor-critic for actions within bounds, for plain, diffusion and latent-action policies."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor
from torch.func import functional_call
from typing_extensions import Unpack

from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.objectives.actor_critic import SoftActorCriticLoss, SoftActorCriticOptions
from diffpolicy.objectives.critics import check_critic
from diffpolicy.objectives.rows import next_key, wide
from diffpolicy.policies.draws import generator_on
from diffpolicy.policies.heads import BoundedHead
from diffpolicy.policies.policy import Policy


class LatentBoundedSACLoss(SoftActorCriticLoss):
    """Losses of actor, critics and temperature on transitions (s, x, a, r, s', x') with vector actions.

    The law of an action is squashed normal; its mean and spread are the end of the chain, so that its gradient goes
    through the whole chain (Haarnoja et al. 2018, arXiv 1812.05905; with a `GaussianPrior` the continuous form of
    D2SAC, arXiv 2303.13052). With a, log pi drawn pathwise and Q the least of the ensemble:

    * critics: (Q_k(s, a) - r - gamma (1 - terminated) (Qbar(s', a') - alpha log pi(a')))^2
    * actor: alpha log pi(a) - Q(s, a)
    * temperature: alpha (-log pi - target entropy), one alpha an agent

    Values are means over rows and sums over agents and critics. Entropies are conditional on one chain's noise.

    Args:
        policy: with a `BoundedHead`.
        critic: of width F + D (+ W with `critic_latent`) and one output; it reads actions scaled to [-1, 1].
        target_entropy: in nats of actions scaled to [-1, 1], or `auto`: -D.
        shared: gamma, tau, alpha, target_actor, critic_latent and reward_scale of `SoftActorCriticLoss`.

    Raises:
        InputError: the policy's head is another one.

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
        if not isinstance(policy.head, BoundedHead):
            raise InputError(f"this loss needs a BoundedHead, got a {type(policy.head).__name__}")
        super().__init__(policy, critic, **shared)
        self.head = policy.head
        check_critic(
            critic, policy, policy.observation_dim + self.critic_latent * policy.choices + len(self.head.low), 1
        )
        half = [(high - low) / 2 for low, high in zip(self.head.low, self.head.high, strict=True)]
        self.log_volume = sum(map(math.log, half))
        dims = len(self.head.low)
        self.target_entropy = (-float(dims) if target_entropy == "auto" else target_entropy) + self.log_volume

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The losses of a batch of rows, `[M]` or `[G, M]`."""
        k = self.tensor_keys
        self.check_rows(tensordict)
        nxt = tensordict["next"]
        observation, next_observation = wide(tensordict, k.observation), wide(tensordict, next_key(k.observation))
        rows, dtype = observation.shape[:-1], self.policy.dtype
        terminated = nxt.get(k.terminated, None)
        losses = self.losses(
            observation=observation,
            next_observation=next_observation,
            latent=tensordict[k.latent] if self.reads_latent else None,
            next_latent=nxt[k.latent] if self.reads_latent else None,
            action=tensordict[k.action].to(dtype),
            reward=tensordict[k.reward].view(rows).to(dtype),
            terminated=None if terminated is None else terminated.view(rows).bool(),
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
            action: `[.., M, D]`. reward, terminated: `[.., M]`.
            next_noise, noise: what the policies' `noise` drew. next_draws, draws: of N(0, 1), `[.., M, D]`.
        """
        log_alpha = self.log_alpha
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            law = self.actor.law(next_observation, next_latent, None, next_noise)
            chosen, log_p = self.head.with_log_prob(law, next_draws)
            least = self._values(self.target_critic, next_observation, next_latent, chosen).amin(0)
            value = least - alpha * log_p
            if terminated is not None:
                value = value * ~terminated
            target = self.reward_scale * reward + self.gamma * value
        loss_q = (self._values(self.critic, observation, latent, action) - target).square().mean(-1).sum()

        law = self.policy.law(observation, latent, None, noise)
        chosen, log_p = self.head.with_log_prob(law, draws)
        # the actor's loss moves the actor alone
        still = {name: p.detach() for name, p in self.critic.named_parameters()}
        critic = partial(functional_call, self.critic, still)
        cost = alpha * log_p - self._values(critic, observation, latent, chosen).amin(0)
        entropy = -log_p.detach().mean(-1, keepdim=True)
        if log_alpha.ndim == 0:
            entropy = entropy.squeeze(-1)
        loss_alpha = self.temperature_loss(entropy, self.target_entropy)
        return cost.mean(-1).sum(), loss_q, loss_alpha, alpha.mean(), (entropy - self.log_volume).mean()

    def _values(
        self, critic: Callable[[Tensor], Tensor], observation: Tensor, latent: Tensor | None, action: Tensor
    ) -> Tensor:
        """Q of pairs, `[ensemble, .., M]`."""
        state = self.critic_input(observation, latent)
        return critic(torch.cat([state, self.head.scaled(action)], -1)).squeeze(-1)
