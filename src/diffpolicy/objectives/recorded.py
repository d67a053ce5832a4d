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
    kind, sampling = type(policy.process).__name__, policy.sampling
    if not isinstance(policy.process, TokenProcess):
        if not numbers:
            raise InputError(f"recorded chains are of tokens here, and the states of a {kind} are numbers")
        if policy.prior_network is not None:
            raise InputError(
                f"recorded chains start from noise, and a {type(policy.prior).__name__} would learn nothing of them; "
                "take a GaussianPrior"
            )
        if steps and sampling.noisy_steps(policy.process) < len(policy.path):
            raise InputError(
                f"a step of a {type(sampling).__name__} draws nothing, so that it has no density; give it a min_std "
                f"above 0, got {sampling.min_std:g}"
            )
    if steps and isinstance(sampling, Ancestral) and sampling.order != "chance":
        raise InputError(
            "the order of a chain by confidence hangs on its parameters, so that steps of others may be impossible; "
            "take Ancestral(order='chance')"
        )


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
    """All states of the chains of given draws: tokens `[steps + 1, .., M, K]`, or numbers `[steps + 1, .., M, K, W]`.

    Args:
        policy: that starts from its process's end. observation: `[.., M, F]`. mask: `[.., M, A]`, or None.
        noise: of `policy.noise`, `[draws, .., M, *]`.
    """
    model, condition, allowed = _parts(policy, observation, mask)
    noise = noise.to(observation.device)
    if isinstance(policy.process, TokenProcess):
        start = policy.process.terminal(noise[0], allowed)
    else:
        noise = noise.to(policy.dtype).unflatten(-1, (policy.head.slots, -1))
        start = policy.process.terminal(policy.prior.begin(None, noise[0]))
    return policy.sampling.chain(model, start, condition, policy.process, noise[1:]).states


def ended(policy: Policy, states: Tensor) -> Tensor:
    """The actions in which chains ended, `[.., M, *event]`. Args: states: of `recorded`."""
    if not isinstance(policy, DiffusionPolicy):
        return states[0]
    return policy.head.mode(states[-1] if policy.process.discrete else states[-1].flatten(-2))


def step_log_probs(policy: Policy, observation: Tensor, mask: Tensor | None, states: Tensor) -> Tensor:
    """Log-probability (density) of each recorded step under a policy, `[steps, .., M]`, with gradients to it.

    Args:
        policy: of the same kind as that which was recorded. observation, mask, states: of `recorded`.
    """
    if not isinstance(policy, DiffusionPolicy):
        return policy.head.log_prob(policy.law(observation, None, mask), states[0]).unsqueeze(0)
    model, condition, _ = _parts(policy, observation, mask)
    return over_slots(policy.sampling.log_prob(model, states, condition, policy.process))


def _parts(policy: DiffusionPolicy, observation: Tensor, mask: Tensor | None) -> tuple[Model, Any, Tensor | None]:
    """The model of a policy's sampler, what it is conditioned on, and of tokens which are allowed."""
    condition = policy.prepared(policy.condition(observation))
    if not policy.process.discrete:

        def numbers(x: Tensor, t: int, cond: Any) -> Tensor:
            return policy.predicted(x if policy.items_read else x.flatten(-2), t, cond).reshape(x.shape)

        return numbers, condition, None
    allowed = allowed_tokens(policy, mask, observation.shape[:-1])

    def logits(x: Tensor, t: int, cond: Any) -> Tensor:
        return policy.token_logits(x, t, cond, allowed, policy.vocabulary)

    return logits, condition, allowed
