"""`MirrorDescentLoss` and `OnChainMirrorLoss`: forward-KL mirror descent on a policy's own actions (RL-D2)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.objectives.action_critic import ActionCriticOptions, repeated
from diffpolicy.objectives.denoising import spread
from diffpolicy.objectives.recorded import check_records, ended, recorded
from diffpolicy.objectives.token_imitation import token_errors
from diffpolicy.objectives.weighted import WeightedActionLoss, from_even
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.draws import generator_on
from diffpolicy.policies.policy import Policy


class MirrorDescentLoss(WeightedActionLoss):
    """A policy goes to pi_old exp(A / lambda) / Z by learning actions of pi_old with softmax weights.

    The forward Kullback-Leibler step of RL-D2 (Ma et al. 2025, arXiv 2509.22963) on chains of tokens; l of
    `WeightedActionLoss`, a_1..N of pi_old, which is the slowly following copy:

        w = softmax_n(Q(s, a_n) / lambda),   L = sum_n w_n l(a_n),   V(s') = mean of Q over N' actions.

    Of one state the weights are those of importance sampling, right for many N. Lambda is found by the dual of a bound
    on the divergence, max over lambda of -lambda (target_kl + log mean_n exp(Q_n / lambda)), whose gradient is the
    bound less sum_n w_n log(N w_n), one lambda an agent (Abdolmaleki et al. 2018, arXiv 1806.06920).

    Args:
        policy, critic: of `ActionCriticLoss`.
        temperature: lambda, the first one where it is found, in units of scaled rewards, above 0.
        target_kl: nats that a step may go from pi_old, above 0 and below log N, the most that weights can say; None:
            lambda stays as it is.
        shared: samples, next_samples, gamma, tau, target_actor and reward_scale of `ActionCriticLoss`.

    Raises:
        InputError: a number is out of range, or the policy or the critic does not fit.

    Example:
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), schedule=MaskedProcess(1), head=TokenHead())
        >>> loss = MirrorDescentLoss(policy, action_critic(policy), temperature=1.0, target_kl=None)
        >>> loss.weights(torch.tensor([[0.0, 0.0, 1.0]]))
        tensor([[0.2119, 0.2119, 0.5761]])
    """

    by_weights = True
    """Whether the divergence is of softmax weights, which is below log N."""

    def __init__(
        self,
        policy: Policy,
        critic: nn.Module,
        *,
        temperature: float = 1.0,
        target_kl: float | None = 0.1,
        **shared: Unpack[ActionCriticOptions],
    ) -> None:
        self.check_chain(policy)
        super().__init__(policy, critic, **shared)
        check.number(temperature, "temperature", above=0)
        self.target_kl = None if target_kl is None else check.number(target_kl, "target_kl", above=0)
        if self.by_weights and self.target_kl is not None and self.target_kl >= math.log(self.samples):
            raise InputError(
                f"target_kl must be below log(samples) = {math.log(self.samples):.4g}, which weights of {self.samples} "
                f"samples never reach, got {self.target_kl:g}"
            )
        lead = () if policy.agents is None else (policy.agents, 1)
        self.log_temperature = nn.Parameter(torch.full(lead, math.log(temperature)))

    @staticmethod
    def check_chain(policy: Policy) -> None:
        """Raises InputError if a subclass cannot learn of a policy's chain. Args: policy: any."""

    @property
    def temperature(self) -> Tensor:
        """Lambda, `[]`, or `[G, 1]`; no gradient."""
        return self.log_temperature.detach().exp()

    def weights(self, q: Tensor) -> Tensor:
        return (q / self.temperature.unsqueeze(-1)).softmax(-1)

    def value(self, q: Tensor) -> Tensor:
        return q.mean(-1)

    def more(self, observation: Tensor, mask: Tensor | None, weight: Tensor) -> dict[str, Tensor]:
        """What lambda is to lessen, and lambda."""
        return self.dual(from_even(weight).mean(-1))

    def dual(self, kl: Tensor) -> dict[str, Tensor]:
        """The loss of lambda. Args: kl: nats from pi_old, a mean over states, `[]`, or `[G]`."""
        told = {"temperature": self.temperature.mean(), "kl": kl.detach().mean()}
        if self.target_kl is None:
            return told
        kl = kl.detach().view(self.log_temperature.shape)
        return {**told, "loss_temperature": (self.log_temperature.exp() * (self.target_kl - kl)).sum()}

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """What is optimised, by the name of its learning rate."""
        return {**super().parameter_groups(), "temperature": [self.log_temperature]}


class OnChainMirrorLoss(MirrorDescentLoss):
    """As `MirrorDescentLoss`, but learned at the states that pi_old's chain went through, not at corrupted actions.

    The on-policy diffusion of RL-D2 (Ma et al. 2025, arXiv 2509.22963): of each recorded chain one state a_t is taken,
    at a step drawn alike from all, and l(a_0) is the cross-entropy of its hidden tokens there. Where one token is shown
    at a time it leads where `MirrorDescentLoss` does; with several it learns where the chain really is.

    Args:
        policy: a chain of tokens; without a chain it is `MirrorDescentLoss`. critic: of `ActionCriticLoss`.
        temperature, target_kl: of `MirrorDescentLoss`.
        shared: samples, next_samples, gamma, tau, target_actor and reward_scale of `ActionCriticLoss`.

    Raises:
        InputError: a number is out of range, or the policy or the critic does not fit.

    Example:
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), schedule=MaskedProcess(2), head=TokenHead())
        >>> loss = OnChainMirrorLoss(policy, action_critic(policy), samples=4)
        >>> sorted(loss.actor_losses(torch.zeros(5, 3), None))
        ['kl', 'loss_actor', 'loss_temperature', 'temperature']
    """

    @staticmethod
    def check_chain(policy: Policy) -> None:
        check_records(policy, steps=False)

    def actor_losses(self, observation: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        policy = self.policy
        if not isinstance(policy, DiffusionPolicy):
            return super().actor_losses(observation, mask)
        each, given = repeated(observation, self.samples), repeated(mask, self.samples)
        with torch.no_grad():
            states = recorded(self.actor, each, given)
        weight = self.weighed(each, ended(policy, states), mask)
        generator = generator_on(policy.generator, each.device)
        when = torch.rand(*each.shape[:-2], 1, generator=generator, device=generator.device).to(each.device)
        path = torch.tensor(policy.path, device=each.device)
        number = spread(when, each.shape[-2], len(path), self.samples) - 1
        x = states.gather(0, number.unsqueeze(-1).expand(states.shape[1:]).unsqueeze(0)).squeeze(0)
        allowed = policy.allowed_tokens(given, each.shape[:-1])
        dropped = policy.drops(each.shape[:-1])
        loss = token_errors(policy, each, states[-1], x, path[number], allowed, dropped, policy.path)
        of_states = (weight * loss.unflatten(-1, (-1, self.samples))).sum(-1)
        return {"loss_actor": of_states.mean(-1).sum(), **self.more(observation, mask, weight)}
