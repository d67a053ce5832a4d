"""Recorded chains: what a policy went through to its actions, and how probable each step is under a policy of now."""

from __future__ import annotations

from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.policy import Policy


def check_records(policy: Policy, steps: bool, numbers: bool = False) -> None:
    """Refuses chains whose states are not read, and where `steps` asks for it those whose steps have no probability.

    Args:
        policy: any. steps: whether the probabilities of single steps are asked for. numbers: whether the states may be
            numbers.

    Raises:
        InputError: names the policy's process, its prior or its sampler.
    """
    if not isinstance(policy, DiffusionPolicy):
        return
    if not numbers and not policy.process.discrete:
        kind = type(policy.process).__name__
        raise InputError(f"recorded chains are of tokens here, and the states of a {kind} are numbers")
    policy.check_chain(steps)


def recorded(policy: Policy, observation: Tensor, mask: Tensor | None) -> Tensor:
    """What a policy draws, with all states of its chain: those of `replayed`, or `[1, .., M, *event]`.

    Args:
        policy: a chain of tokens, or a policy without a chain. observation: `[.., M, F]`. mask: `[.., M, W]`, or None.
    """
    if not isinstance(policy, DiffusionPolicy):
        return policy.choose(policy.law(observation, None, mask)).unsqueeze(0)
    noise = policy.noise(observation.shape[:-1])
    assert noise is not None
    return replayed(policy, observation, mask, noise)


def replayed(policy: DiffusionPolicy, observation: Tensor, mask: Tensor | None, noise: Tensor) -> Tensor:
    """All states of the chains of given draws, see `DiffusionPolicy.states_of`.

    Args:
        policy: that starts from its process's end. observation: `[.., M, F]`. mask: `[.., M, A]`, or None.
        noise: of `policy.noise`, `[draws, .., M, *]`.
    """
    return policy.states_of(policy.condition(observation), mask, noise)


def ended(policy: Policy, states: Tensor) -> Tensor:
    """The actions in which chains ended, `[.., M, *event]`. Args: states: of `recorded`."""
    return policy.ends_of(states) if isinstance(policy, DiffusionPolicy) else states[0]


def step_log_probs(policy: Policy, observation: Tensor, mask: Tensor | None, states: Tensor) -> Tensor:
    """Log-probability (density) of each recorded step under a policy, `[steps, .., M]`, with gradients to it.

    Args:
        policy: of the same kind as that which was recorded. observation, mask, states: of `recorded`.
    """
    if not isinstance(policy, DiffusionPolicy):
        return policy.head.log_prob(policy.law(observation, None, mask), states[0]).unsqueeze(0)
    return policy.step_log_probs(policy.condition(observation), mask, states)
