"""Recorded chains: what a policy went through to its actions, and how probable each step is under a policy of now."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffpolicy.diffusion.discrete import Ancestral
from diffpolicy.diffusion.kernels import over_slots
from diffpolicy.diffusion.sampler import Model
from diffpolicy.diffusion.tokens import TokenProcess
from diffpolicy.errors import InputError
from diffpolicy.objectives.action_losses import allowed_tokens
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.policy import Policy


def check_records(policy: Policy, steps: bool) -> None:
    """Refuses chains of numbers, and where `steps` asks for it those whose steps have no probability of their own.

    Args:
        policy: any. steps: whether the probabilities of single steps are asked for.

    Raises:
        InputError: names the policy's process, or its sampler.
    """
    if not isinstance(policy, DiffusionPolicy):
        return
    if not isinstance(policy.process, TokenProcess):
        kind = type(policy.process).__name__
        raise InputError(f"recorded chains are of tokens here, and the states of a {kind} are numbers")
    if steps and isinstance(policy.sampling, Ancestral) and policy.sampling.order != "chance":
        raise InputError(
            "the order of a chain by confidence hangs on its parameters, so that steps of others may be impossible; "
            "take Ancestral(order='chance')"
        )


def recorded(policy: Policy, observation: Tensor, mask: Tensor | None) -> Tensor:
    """What a policy draws, with all states of its chain: tokens `[steps + 1, .., M, K]`, or `[1, .., M, *event]`.

    Args:
        policy: a chain of tokens, or a policy without a chain. observation: `[.., M, F]`. mask: `[.., M, W]`, or None.
    """
    if not isinstance(policy, DiffusionPolicy):
        return policy.choose(policy.law(observation, None, mask)).unsqueeze(0)
    model, cond, allowed = _parts(policy, observation, mask)
    noise = policy.noise(observation.shape[:-1])
    assert noise is not None
    assert isinstance(policy.process, TokenProcess)
    noise = noise.to(observation.device)
    start = policy.process.terminal(noise[0], allowed)
    return policy.sampling.chain(model, start, cond, policy.process, noise[1:]).states


def ended(policy: Policy, states: Tensor) -> Tensor:
    """The actions in which chains ended, `[.., M, *event]`. Args: states: of `recorded`."""
    return policy.head.mode(states[-1]) if isinstance(policy, DiffusionPolicy) else states[0]


def step_log_probs(policy: Policy, observation: Tensor, mask: Tensor | None, states: Tensor) -> Tensor:
    """Log-probability of each recorded step under a policy, `[steps, .., M]`, with gradients to it.

    Args:
        policy: of the same kind as that which was recorded. observation, mask, states: of `recorded`.
    """
    if not isinstance(policy, DiffusionPolicy):
        return policy.head.log_prob(policy.law(observation, None, mask), states[0]).unsqueeze(0)
    model, cond, _ = _parts(policy, observation, mask)
    return over_slots(policy.sampling.log_prob(model, states, cond, policy.process))


def _parts(policy: DiffusionPolicy, observation: Tensor, mask: Tensor | None) -> tuple[Model, Any, Tensor]:
    """The model of a policy's sampler, what it is conditioned on, and which tokens are allowed."""
    allowed = allowed_tokens(policy, mask, observation.shape[:-1])

    def model(x: Tensor, t: int, cond: Any) -> Tensor:
        return policy.token_logits(x, t, cond, allowed, policy.vocabulary)

    return model, policy.prepared(policy.condition(observation)), allowed
