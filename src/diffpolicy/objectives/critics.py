"""Critics of pairs of state and action, for actions of any kind, and whether a critic fits a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.policies.policy import Policy


def action_critic(
    policy: Policy,
    *,
    ensemble: int = 2,
    hidden: Sequence[int] = (20, 20),
    act: str = "relu",
    generator: torch.Generator | None = None,
) -> CriticEnsemble:
    """A critic Q(s, a) of a policy's whole action, which it reads as numbers: for any head, and any number of choices.

    Args:
        policy: whose observations, actions and agents it is for.
        ensemble, hidden, act, generator: of `CriticEnsemble`.

    Returns:
        One output, of F numbers of the observation and `head.feature_width` of the action; see `action_values`.

    Raises:
        InputError: the policy's head does not say how its action is read.

    Example:
        >>> policy = FeedforwardPolicy.from_specs(Clinic(1))
        >>> action_values(action_critic(policy), policy, torch.zeros(8, 3), torch.ones(8).long()).shape
        torch.Size([2, 8])
    """
    inputs = policy.observation_dim + policy.head.feature_width
    return CriticEnsemble(inputs, 1, ensemble, hidden, act, policy.agents, generator)


def action_values(critic: Callable[[Tensor], Tensor], policy: Policy, observation: Tensor, action: Tensor) -> Tensor:
    """Q_k(s, a) of rows under each critic of an ensemble.

    Args:
        critic: of `action_critic`. policy: normalises what is observed, and its head reads the action.
        observation: `[.., M, F]`. action: `[.., M, *event]`.

    Returns:
        `[K, .., M]`.

    Example:
        >>> policy = FeedforwardPolicy.from_specs(Clinic(1))
        >>> read = lambda x: x.sum(-1, keepdim=True).unsqueeze(0)  # a critic that adds up what it reads
        >>> action_values(read, policy, torch.ones(2, 3), torch.tensor([0, 2]))  # the action is one-hot
        tensor([[4., 4.]])
    """
    seen = policy.normalized(observation)
    return critic(torch.cat([seen, policy.head.features(action).to(seen)], -1)).squeeze(-1)


def state_values(critic: Callable[[Tensor], Tensor], policy: Policy, observation: Tensor) -> Tensor:
    """V(s) of rows, the mean over an ensemble, `[.., M]`.

    Args:
        critic: of states. policy: normalises what is observed. observation: `[.., M, F]`.

    Example:
        >>> policy = FeedforwardPolicy.from_specs(Clinic(1))
        >>> state_values(CriticEnsemble(3, 1, ensemble=1), policy, torch.zeros(8, 3)).shape
        torch.Size([8])
    """
    return critic(policy.normalized(observation)).mean(0).squeeze(-1)


def check_critic(critic: nn.Module, policy: Policy, inputs: int, outputs: int) -> None:
    """Tries a critic on zeros.

    Args:
        critic: of pairs or states. policy: whose agents and numbers it is to have. inputs, outputs: its widths.

    Raises:
        InputError: it has other agents or widths, or is on another device.
    """
    like = next(iter(policy.parameters()), torch.zeros(()))
    own = next(iter(critic.parameters()), like)
    if own.device != like.device:
        raise InputError(f"the critic is on {own.device}, and the policy on {like.device}")
    if isinstance(critic, CriticEnsemble) and critic.agents != policy.agents:
        raise InputError(f"the critic has networks for agents={critic.agents}, and the policy for {policy.agents}")
    lead = (2,) if policy.agents is None else (policy.agents, 2)
    x = torch.zeros(*lead, inputs, dtype=own.dtype, device=own.device)
    try:
        with torch.no_grad():
            value = critic(x)
    except RuntimeError as error:
        raise InputError(f"the critic cannot read inputs of width {inputs}: {str(error).splitlines()[0]}") from None
    if value.shape[1:] != (*lead, outputs):
        wanted = ", ".join(map(str, ("K", *lead, outputs)))
        raise InputError(f"the critic must give {outputs} values of a row, [{wanted}], got {list(value.shape)}")
