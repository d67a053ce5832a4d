"""`QDFMLoss`: Q-weighted discrete flow matching."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from typing_extensions import Unpack

from diffpolicy import _validate as check
from diffpolicy.diffusion.tokens import TokenProcess
from diffpolicy.errors import InputError
from diffpolicy.objectives.action_critic import ActionCriticOptions
from diffpolicy.objectives.denoising import spread
from diffpolicy.objectives.weighted import WeightedActionLoss, from_even
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.draws import generator_on
from diffpolicy.policies.policy import Policy


class QDFMLoss(WeightedActionLoss):
    """The rates of a flow of tokens are matched to its own actions, each weighted by its value (QDFM).

    From Khan et al. (2026, arXiv 2602.06138), whose code is not public. With a_1..N the ends of the flow, each token of
    x_t that of a_n with probability t and any allowed one else, and p the law of x_0 that is predicted,

        w = softmax_n(beta Q(s, a_n)),   u(y | x) = p(y | x, t, s) / (1 - t) for y other than x,
        L = sum_n w_n sum over slots and y other than x of (u(y | x) - 1[y = a_n] / (1 - t))^2,

    which is least where p is the weighted law of a_n given x_t. The value of a next state is sum_j softmax_j(beta Q_j)
    Q_j. Levels stand for time, t being the chance `kept`; a chain goes back by the rates of the same process. What it
    writes as `kl` is how far weights are from even ones, in nats: near 0 values say next to nothing, and beta or
    reward_scale is to be greater.

    Args:
        policy: a chain of tokens, as published of a `UniformProcess`; what a `MaskedProcess` hides jumps once. Or a
            policy without a chain, which learns by minus the log-probability.
        critic: of `ActionCriticLoss`.
        beta: how much values weigh, per unit of scaled reward, above 0.
        shared: samples, next_samples, gamma, tau, target_actor and reward_scale of `ActionCriticLoss`.

    Raises:
        InputError: a number is out of range, or the policy or the critic does not fit.

    Example:
        >>> chain = {"schedule": UniformProcess(5), "sampler": "tau-leaping", "head": TokenHead()}
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), **chain)
        >>> loss = QDFMLoss(policy, action_critic(policy), beta=1.0)
        >>> loss.weights(torch.tensor([[0.0, 0.0, 1.0]]))
        tensor([[0.2119, 0.2119, 0.5761]])
    """

    def __init__(
        self, policy: Policy, critic: nn.Module, *, beta: float = 5.0, **shared: Unpack[ActionCriticOptions]
    ) -> None:
        if isinstance(policy, DiffusionPolicy) and not isinstance(policy.process, TokenProcess):
            raise InputError(
                f"a QDFMLoss matches rates of tokens, and the states of a {type(policy.process).__name__} are not "
                "tokens"
            )
        super().__init__(policy, critic, **shared)
        self.beta = check.number(beta, "beta", above=0)

    def weights(self, q: Tensor) -> Tensor:
        return (self.beta * q).softmax(-1)

    def value(self, q: Tensor) -> Tensor:
        return (self.weights(q) * q).sum(-1)

    def more(self, observation: Tensor, mask: Tensor | None, weight: Tensor) -> dict[str, Tensor]:
        """How much the values say."""
        return {"kl": from_even(weight).mean()}

    def given(self, observation: Tensor, action: Tensor, mask: Tensor | None) -> Tensor:
        policy = self.policy
        if not isinstance(policy, DiffusionPolicy):
            return super().given(observation, action, mask)
        process = policy.process
        assert isinstance(process, TokenProcess)
        generator, rows = generator_on(policy.generator, observation.device), observation.shape[:-1]
        when = torch.rand(*rows[:-1], 1, generator=generator, device=generator.device).to(observation.device)
        t, x0 = spread(when, rows[-1], process.steps, self.samples), policy.head.encode(action)
        noise = torch.rand(x0.shape, generator=generator, device=generator.device).to(observation.device)
        allowed = policy.allowed_tokens(mask, rows)
        x = process.corrupt(x0, t, noise, allowed)
        cond = policy.learned(observation, policy.drops(rows))
        law = policy.token_logits(x, t, cond, allowed, policy.vocabulary).softmax(-1)
        hidden, goes = (x == law.shape[-1]).unsqueeze(-1), 1 - one_hot(x % law.shape[-1], law.shape[-1])
        hides = policy.vocabulary > law.shape[-1]
        other = (hidden.expand_as(law) if hides else goes).to(law)  # a token that is shown stays
        left = 1 - torch.tensor([process.kept(i) for i in range(1, process.steps + 1)]).to(law)[t - 1]
        off = (other * (law - one_hot(x0, law.shape[-1]))).square().sum((-2, -1))
        return off / left.square()
