"""`QVPOLoss`: Q-weighted variational policy optimisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from diffpolicy import _validate as check
from diffpolicy.objectives.action_critic import ActionCriticOptions, repeated
from diffpolicy.objectives.action_losses import action_losses
from diffpolicy.objectives.weighted import WeightedActionLoss
from diffpolicy.policies.draws import generator_on
from diffpolicy.policies.policy import Policy


class QVPOLoss(WeightedActionLoss):
    """A chain learns its own actions by how far they are above the average of a state (QVPO).

    Ding et al. (2024, arXiv 2405.16173, NeurIPS), whose weights are never negative (`qadv` in their code). With a_1..N
    of the policy's chain and l of `WeightedActionLoss`,

        w_n = (Q(s, a_n) - mean_m Q(s, a_m))_+ / N,   L = sum_n w_n l(a_n) + entropy (sum_n w_n) mean_j l(u_j)

    with u_j drawn alike from all actions that are allowed, which keeps the law wide. The value of a next state is the
    greatest among its N' actions. The papers' chains are of numbers, for vectors within bounds; a chain of tokens
    learns choices by the same objective.

    Args:
        kept: how many of the N are learned from, the best ones (1 in the paper), and any of those that tie; at least 1,
            and None or N and more: all.
        entropy: weight of the uniform actions, at least 0; 0: none are drawn.
        uniform: how many of them are drawn in a state, at least 1.
        policy, critic: of `WeightedActionLoss`.
        shared: samples, next_samples, gamma, tau, target_actor and reward_scale of `ActionCriticLoss`.

    Raises:
        InputError: a number is out of range, or the policy or the critic does not fit.

    Example:
        >>> chain = {"schedule": MaskedProcess(4), "head": TokenHead()}
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), **chain)
        >>> loss = QVPOLoss(policy, action_critic(policy), samples=4)
        >>> loss.weights(torch.tensor([[1.0, 2.0, 6.0, 3.0]]))  # one is above the average, 3
        tensor([[0.0000, 0.0000, 0.7500, 0.0000]])
    """

    def __init__(
        self,
        policy: Policy,
        critic: nn.Module,
        *,
        kept: int | None = None,
        entropy: float = 0.01,
        uniform: int = 4,
        **shared: Unpack[ActionCriticOptions],
    ) -> None:
        super().__init__(policy, critic, **shared)
        self.kept = None if kept is None else check.integer(kept, "kept", least=1)
        self.entropy = check.number(entropy, "entropy", least=0)
        self.uniform = check.integer(uniform, "uniform", least=1)

    @property
    def learned(self) -> int:
        return self.samples if self.kept is None else min(self.kept, self.samples)

    def weights(self, q: Tensor) -> Tensor:
        above = (q - q.mean(-1, keepdim=True)).clamp_min(0) / q.shape[-1]
        if self.kept is None or self.kept >= q.shape[-1]:
            return above
        best = above.topk(self.kept, -1)  # so many and no more, since choices are often drawn twice and tie
        return torch.zeros_like(above).scatter(-1, best.indices, best.values)

    def value(self, q: Tensor) -> Tensor:
        return q.amax(-1)

    def more(self, observation: Tensor, mask: Tensor | None, weight: Tensor) -> dict[str, Tensor]:
        """What giving uniform actions costs."""
        if not self.entropy:
            return {}
        each, given = repeated(observation, self.uniform), repeated(mask, self.uniform)
        action = self.policy.head.uniform(each.shape[:-1], given, generator_on(self.policy.generator, each.device))
        loss = action_losses(self.policy, each, action.to(each.device), given, self.uniform)
        of_states = weight.sum(-1) * loss.unflatten(-1, (-1, self.uniform)).mean(-1)
        return {"loss_entropy": self.entropy * of_states.mean(-1).sum()}
