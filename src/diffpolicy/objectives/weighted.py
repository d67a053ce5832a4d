"""`WeightedActionLoss`: a policy learns actions that it drew itself, each as much as a critic's weight says."""

from __future__ import annotations

from torch import Tensor

from diffpolicy.objectives.action_critic import ActionCriticLoss, repeated
from diffpolicy.objectives.action_losses import action_losses


class WeightedActionLoss(ActionCriticLoss):
    """Base of losses that weigh a policy's own actions by their values; a subclass gives `weights` and `value`.

    With a_1..N drawn in each state, Q the least of the ensemble and l the loss of giving an action (`action_losses`: a
    chain's denoising loss; minus the log-probability of a policy without a chain), the actor's is sum_n w_n l(a_n).
    Nothing is differentiated but l.

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

    def weights(self, q: Tensor) -> Tensor:
        """Weights of a state's actions, `[.., M, N]`. Args: q: their values, `[.., M, N]`."""
        raise NotImplementedError

    def given(self, observation: Tensor, action: Tensor, mask: Tensor | None) -> Tensor:
        """The loss l of actions, `[.., M N]`. Args: observation: `[.., M N, F]`. action, mask: likewise."""
        return action_losses(self.policy, observation, action, mask, self.samples)

    def actor_losses(self, observation: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """What the actor is to lessen, by name. Args: observation: `[.., M, F]`. mask: `[.., M, W]`, or None."""
        each, given = repeated(observation, self.samples), repeated(mask, self.samples)
        action = self.drawn(each, given)
        weight = self.weights(self.values(each, action))
        loss = self.given(each, action, given).unflatten(-1, (-1, self.samples))
        return {"loss_actor": (weight * loss).sum(-1).mean(-1).sum(), **self.more(observation, mask, weight)}

    def more(self, observation: Tensor, mask: Tensor | None, weight: Tensor) -> dict[str, Tensor]:
        """Further losses of a subclass, by name. Args: of `actor_losses`; weight: `[.., M, N]`."""
        return {}
