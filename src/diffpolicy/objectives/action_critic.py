"""`ActionCriticLoss`: a policy that learns from the values Q(s, a) of actions that it drew itself."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor, nn
from typing_extensions import TypedDict

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.networks.critic import least
from diffpolicy.objectives.action_losses import check_learns_actions
from diffpolicy.objectives.critics import action_values, check_critic
from diffpolicy.objectives.off_policy import OffPolicyLoss
from diffpolicy.objectives.rows import row_masks, wide
from diffpolicy.policies.nested_keys import next_key
from diffpolicy.policies.policy import Policy


class ActionCriticOptions(TypedDict, total=False):
    """Arguments of `ActionCriticLoss`, for the constructors of its subclasses."""

    samples: int
    next_samples: int
    gamma: float
    tau: float
    target_actor: bool
    reward_scale: float


class ActionCriticLoss(OffPolicyLoss):
    """Base of losses of a policy and a critic Q(s, a) over actions it draws; a subclass gives two things.

    `value(q)` is what a next state is worth, of the least of the target critics' values of N' actions drawn in it, so
    that critics learn (Q_k(s, a) - r - gamma (1 - terminated) V(s'))^2. `actor_losses(observation, mask)` is what the
    policy is to lessen. Values are means over rows and sums over agents and critics. Actions are only drawn, so that
    the number of joint choices does not matter; any policy will do that `check_learns_actions` takes. A row whose
    action is -1, no choice, in any part corrects no value, and of a state that allows nothing the policy learns
    nothing (`counted`).

    Args:
        policy: a chain whose x_0 is the action, or a policy without a chain.
        critic: of `action_critic`.
        samples: N, actions of a state from which the policy learns; at least 2, since they are weighed together.
        next_samples: N', actions of a next state, at least 1.
        target_actor: whether the slowly following copy of the policy draws them.
        gamma, tau, reward_scale: of `OffPolicyLoss`.

    Raises:
        InputError: a number is out of range, or the policy or the critic does not fit.

    Example:
        >>> class Sarsa(ActionCriticLoss):  # values of a policy that stays as it is
        ...     def value(self, q):
        ...         return q.mean(-1)
        ...     def actor_losses(self, observation, mask):
        ...         return {}
        >>> policy = FeedforwardPolicy.from_specs(Clinic(1))
        >>> sorted(Sarsa(policy, action_critic(policy)).parameter_groups())
        ['actor', 'critic']
    """

    out_keys = ["loss_actor", "loss_qvalue"]  # noqa: RUF012 (TorchRL's attribute)

    def __init__(
        self,
        policy: Policy,
        critic: nn.Module,
        *,
        samples: int = 16,
        next_samples: int = 4,
        gamma: float = 0.95,
        tau: float = 0.005,
        target_actor: bool = True,
        reward_scale: float = 1.0,
    ) -> None:
        check_learns_actions(policy)
        super().__init__(policy, critic, gamma=gamma, tau=tau, target_actor=target_actor, reward_scale=reward_scale)
        self.samples = check.integer(
            samples, "samples", least=2, most=_limits.DRAWN
        )  # of one alone there is nothing to prefer
        self.next_samples = check.integer(next_samples, "next_samples", least=1, most=_limits.DRAWN)
        check_critic(critic, policy, policy.observation_dim + policy.head.feature_width, 1)

    def value(self, q: Tensor) -> Tensor:
        """The value of a next state, `[.., M]`. Args: q: of its actions, `[.., M, N']`."""
        raise NotImplementedError

    def actor_losses(self, observation: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """What the policy is to lessen, by name. Args: observation: `[.., M, F]`. mask: `[.., M, W]`, or None."""
        raise NotImplementedError

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The losses of a batch of rows, by the names in `out_keys`.

        Args:
            tensordict: transitions `[M]` or `[G, M]`, with the entries of `OffPolicyLoss.forward`.
        """
        k, dtype = self.tensor_keys, self.policy.dtype
        self.check_rows(tensordict)
        observation, after = wide(tensordict, k.observation), wide(tensordict, next_key(k.observation))
        rows = observation.shape[:-1]
        mask, mask_after = row_masks(tensordict, k.mask, self.policy, rows)
        target = self.target(
            after,
            mask_after,
            tensordict[k.reward].view(rows).to(dtype),
            self.over(tensordict, rows),
        )
        action = tensordict[k.action]
        value = action_values(self.critic, self.policy, observation, action)
        # nothing was chosen where an action is none, so there is no value to correct
        loss_q = ((value - target).square() * ~self.policy.head.impossible(action)).mean(-1).sum()
        return TensorDict({**self.actor_losses(observation, mask), "loss_qvalue": loss_q})

    @torch.no_grad()
    def target(self, after: Tensor, mask: Tensor | None, reward: Tensor, terminated: Tensor | None) -> Tensor:
        """What critics are to give, `[.., M]`.

        Args:
            after: next observations, `[.., M, F]`. mask: of them. reward, terminated: of `backed_up`.
        """
        observation, given = repeated(after, self.next_samples), repeated(mask, self.next_samples)
        action = self.drawn(observation, given)
        q = least(action_values(self.target_critic, self.policy, observation, action))
        value = self.counted(self.value(q.unflatten(-1, (-1, self.next_samples))), mask)
        return self.backed_up(reward, value, terminated)

    def counted(self, of_states: Tensor, mask: Tensor | None) -> Tensor:
        """What is told of states, 0 where nothing is allowed, since what was drawn there is arbitrary, `[.., M]`.

        Args:
            of_states: `[.., M]`. mask: bool `[.., M, W]`, or None.
        """
        return of_states if mask is None else of_states * self.policy.head.allows(mask)

    @torch.no_grad()
    def values(self, observation: Tensor, action: Tensor) -> Tensor:
        """The least of the critics' values of a state's actions, `[.., M, N]`. Args: both `[.., M N, *]`."""
        q = least(action_values(self.critic, self.policy, observation, action))
        values: Tensor = q.unflatten(-1, (-1, self.samples))
        return values

    @torch.no_grad()
    def drawn(self, observation: Tensor, mask: Tensor | None) -> Tensor:
        """Actions of rows, as the policy (its slow copy) draws them, `[.., M, *event]`. Args: both `[.., M, *]`."""
        actor = self.actor
        return actor.choose(actor.law(observation, None, mask))


def repeated(x: Any, times: int) -> Any:
    """Each row so many times in a row, `[.., M N, *]`. Args: x: `[.., M, *]`, or None. times: N."""
    return None if x is None else x.repeat_interleave(times, -2)
