"""`OffPolicyLoss`: what losses on replayed transitions share: critics, slowly following targets, and what is read."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives.common import LossModule

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.objectives.rows import check_rows, nothing_follows, row_masks, wide
from diffpolicy.policies.nested_keys import next_key
from diffpolicy.policies.policy import Policy


class OffPolicyLoss(LossModule):
    """Base of losses of a policy and its critics on transitions (s, a, r, s'); a subclass gives `forward`.

    Take a subclass, such as `LatentDiscreteSACLoss`; this class is for a loss of your own. Its critic may be of states
    and choices, or of pairs of state and action (`action_critic`).

    Args:
        policy: what is trained.
        critic: of what a subclass gives it to read.
        gamma: discount, from 0 to 1.
        tau: share of the new parameters in the targets, each update, above 0 and at most 1.
        target_actor: whether the next action comes from a slowly following copy of the policy.
        reward_scale: factor on rewards before anything else.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> from tensordict import TensorDict
        >>> class Values(OffPolicyLoss):  # of the policy that played
        ...     def forward(self, rows):
        ...         value = action_values(self.critic, self.policy, rows["observation"], rows["action"])
        ...         return TensorDict({"loss_qvalue": (value - rows["reward"]).square().mean()})
        >>> policy = FeedforwardPolicy.from_specs(Clinic(1))
        >>> loss = Values(policy, action_critic(policy), tau=1.0)
        >>> sorted(loss.parameter_groups())
        ['actor', 'critic']
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

    def __init__(
        self,
        policy: Policy,
        critic: nn.Module,
        *,
        gamma: float = 0.95,
        tau: float = 0.005,
        target_actor: bool = False,
        reward_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < check.number(tau, "tau") <= 1:
            raise InputError(f"tau must be greater than 0 and at most 1, got {tau}")
        check.number(gamma, "gamma", least=0, most=1)
        check.number(reward_scale, "reward_scale")
        self.policy, self.critic = policy, critic
        self.target_critic = frozen_copy(critic)
        self.target_policy = frozen_copy(policy) if target_actor else None
        self.gamma, self.tau, self.reward_scale = gamma, tau, reward_scale
        self.reads_latent = policy.remembers

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys read from the rows."""
        k = self.tensor_keys
        state: list[NestedKey] = [k.observation, *([k.latent] if self.reads_latent else [])]
        state += [] if not self.policy.reading.masked else [k.mask]
        return [k.action, k.reward, *state, *map(next_key, state)]

    @in_keys.setter
    def in_keys(self, values: Any) -> None:
        raise AttributeError("use set_keys")

    def check_rows(self, td: TensorDictBase) -> None:
        """Raises InputError if rows, or transitions that are to become rows, lack what is read. Args: td: any batch."""
        k = self.tensor_keys
        check_rows(td, self.in_keys, k.observation, self.policy)
        row_masks(td, k.mask, self.policy, wide(td, k.observation).shape[:-1])

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """The losses of a batch of rows; a subclass gives it.

        Args:
            tensordict: transitions `[M]`, or `[G, M]` of G agents: observation `[.., M, F]`, action `[.., M, *event]`,
                reward `[.., M]`, where the policy reads them action_mask, bool `[.., M, W]`, and latent `[.., M, W]`,
                in `next` what followed: observation, action_mask, latent and, if there is one, terminated `[.., M]`;
                also valid `[.., M]` where items may be missing, without which each is there.

        Returns:
            Scalars: what begins with `loss` is minimised, the rest is logged.

        Raises:
            NotImplementedError: the subclass gives none.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(tensordict)")

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        pass

    @property
    def actor(self) -> Policy:
        """Whose law gives the next action: the target's, if there is one."""
        return self.policy if self.target_policy is None else self.target_policy

    def over(self, td: TensorDictBase, rows: torch.Size) -> Tensor | None:
        """After which rows nothing comes, see `nothing_follows`. Args: td: with `next`. rows: `[.., M]`."""
        return nothing_follows(td, self.tensor_keys.terminated, rows)

    def backed_up(self, reward: Tensor, value: Tensor, terminated: Tensor | None) -> Tensor:
        """What critics are to give: scaled r + gamma (1 - terminated) V(s'), `[.., M]`.

        Args:
            reward, value: `[.., M]`. terminated: of `over`, bool `[.., M]`, or None: no state is terminal.
        """
        value = value if terminated is None else value.masked_fill(terminated, 0.0)
        return self.reward_scale * reward + self.gamma * value

    def update_targets(self) -> None:
        """Moves the targets by `tau` towards their networks (Polyak averaging); call it after each optimiser step."""
        pairs: list[tuple[nn.Module, nn.Module]] = [(self.target_critic, self.critic)]
        if self.target_policy is not None:
            pairs.append((self.target_policy, self.policy))
        with torch.no_grad():
            for target, source in pairs:
                torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), self.tau)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """The parts, and by TorchRL's names the parameters of targets, which its updaters (`SoftUpdate`) look for here.

        They are views: `children` and the state are as without them. Use an updater or `update_targets`, not both.
        """
        yield from super().named_children()
        yield "target_critic_params", parameters_of(self.target_critic)
        if self.target_policy is not None:
            yield "target_policy_params", parameters_of(self.target_policy)

    def children(self) -> Iterator[nn.Module]:
        """The parts."""
        return (part for _, part in super().named_children())

    @property
    def critic_params(self) -> TensorDictParams:
        """Of the critics, by TorchRL's name."""
        return parameters_of(self.critic)

    @property
    def target_critic_params(self) -> TensorDictParams:
        """Of the critics' targets."""
        return parameters_of(self.target_critic)

    @property
    def policy_params(self) -> TensorDictParams:
        """Of the policy."""
        return parameters_of(self.policy)

    @property
    def target_policy_params(self) -> TensorDictParams:
        """Of the policy's target, if there is one."""
        if self.target_policy is None:
            raise AttributeError("target_policy_params: there is no target of the policy without target_actor")
        return parameters_of(self.target_policy)

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """What is optimised, by the name of its learning rate."""
        return {"actor": self.policy.parameters(), "critic": self.critic.parameters()}


def parameters_of(module: nn.Module) -> TensorDictParams:
    """A module's parameters as TorchRL holds them, the same tensors. Args: module: whose they are."""
    return TensorDictParams(TensorDict(dict(module.named_parameters())), no_convert=True)


def frozen_copy(module: Any) -> Any:
    """A copy that is not trained; a policy's shares its generator, so that no draw repeats, and its normaliser."""
    shared = [getattr(module, "generator", None), getattr(module, "normalizer", None)]
    other = copy.deepcopy(module, {id(part): part for part in shared if part is not None})
    return other.requires_grad_(False)
