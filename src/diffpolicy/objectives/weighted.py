"""`WeightedActionLoss`: a policy learns actions that it drew itself, each as much as a critic's weight says."""

from __future__ import annotations

import torch
from torch import Tensor

from diffpolicy.objectives.action_critic import ActionCriticLoss, repeated
from diffpolicy.objectives.action_losses import action_losses


class WeightedActionLoss(ActionCriticLoss):
    """Base of losses that weigh a policy's own actions by their values; a subclass gives `weights` and `value`.

    With a_1..N drawn in each state, Q the least of the ensemble and l the loss of giving an action (`action_losses`: a
    chain's denoising loss; minus the log-probability of a policy without a chain), the actor's is sum_n w_n l(a_n).
    Nothing is differentiated but l. Where a subclass says that at most `learned` of the N have a weight, l is had of
    those alone.

    Args:
        policy, critic, samples, next_samples, target_actor, gamma, tau, reward_scale: of `ActionCriticLoss`.

    Raises:
        InputError: a number is out of range, or the policy or the critic does not fit.

    Example:
        >>> class Best(WeightedActionLoss):  # imitation of the best of its own actions
        ...     def weights(self, q):
        ...         return (q == q.amax(-1, keepdim=True)).to(q)
        ...     def value(self, q):
        ...         return q.mean(-1)
        >>> policy = FeedforwardPolicy.from_specs(Clinic(1))
        >>> Best(policy, action_critic(policy), samples=4).weights(torch.tensor([[1.0, 3.0, 2.0]]))
        tensor([[0., 1., 0.]])
    """

    @property
    def learned(self) -> int:
        """How many of a state's N actions may have a weight, those of the greatest."""
        return self.samples

    def weights(self, q: Tensor) -> Tensor:
        """Weights of a state's actions, `[.., M, N]`. Args: q: their values, `[.., M, N]`."""
        raise NotImplementedError

    def given(self, observation: Tensor, action: Tensor, mask: Tensor | None) -> Tensor:
        """The loss l of actions, `[.., M N]`. Args: observation: `[.., M N, F]`. action, mask: likewise."""
        return action_losses(self.policy, observation, action, mask, self.learned)

    def actor_losses(self, observation: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """What the actor is to lessen, by name. Args: observation: `[.., M, F]`. mask: `[.., M, W]`, or None."""
        each, given = repeated(observation, self.samples), repeated(mask, self.samples)
        action = self.drawn(each, given)
        weight = self.weighed(each, action, mask)
        if self.learned < self.samples:
            weight, best = weight.topk(self.learned, -1)
            action = of_each_state(action, best, self.samples)
            each, given = repeated(observation, self.learned), repeated(mask, self.learned)
        loss = self.given(each, action, given).unflatten(-1, (-1, self.learned))
        return {"loss_actor": (weight * loss).sum(-1).mean(-1).sum(), **self.more(observation, mask, weight)}

    def weighed(self, observation: Tensor, action: Tensor, mask: Tensor | None) -> Tensor:
        """`weights` of actions, 0 in states that allow nothing. Args: both `[.., M N, *]`. mask: of states."""
        weight = self.weights(self.values(observation, action))
        return self.counted(weight.movedim(-1, 0), mask).movedim(0, -1)

    def more(self, observation: Tensor, mask: Tensor | None, weight: Tensor) -> dict[str, Tensor]:
        """Further losses of a subclass, by name.

        Args:
            observation, mask: of `actor_losses`. weight: `[.., M, n]` of those that are learned.
        """
        return {}


def from_even(weight: Tensor) -> Tensor:
    """Nats of a state's weights from even ones, sum_n w_n log(N w_n), `[..]`: 0 where values say nothing, to log N.

    Args:
        weight: `[.., N]`, which add up to 1; or 0 all, of which nothing is told.
    """
    return (weight * (weight * weight.shape[-1]).clamp_min(torch.finfo(weight.dtype).tiny).log()).sum(-1)


def of_each_state(action: Tensor, index: Tensor, samples: int) -> Tensor:
    """The chosen ones of each state's actions, `[.., M n, *event]`.

    Args:
        action: N of each state in a row, `[.., M N, *event]`. index: of those that are taken, `[.., M, n]`. samples: N.
    """
    dim = index.ndim - 2
    parted: Tensor = action.unflatten(dim, (-1, samples))
    chosen = index.view(*index.shape, *[1] * (parted.ndim - index.ndim))
    return parted.take_along_dim(chosen, dim + 1).flatten(dim, dim + 1)
