"""How badly a policy gives actions, a number a row: by denoising, by tokens, or by minus the log-probability."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffpolicy.diffusion.tokens import TokenProcess
from diffpolicy.errors import InputError
from diffpolicy.objectives.denoising import denoising_errors, spread
from diffpolicy.objectives.token_imitation import token_errors
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.draws import generator_on
from diffpolicy.policies.policy import Policy


def check_learns_actions(policy: Policy) -> None:
    """Refuses policies of which nobody can say how probable they make an action, nor denoise one.

    Args:
        policy: a chain whose x_0 is the action, or a policy without a chain whose head has a log-probability.

    Raises:
        InputError: it is another one.
    """
    name = f"a {type(policy).__name__} with a {type(policy.head).__name__}"
    if policy.remembers:
        raise InputError(f"actions are learned by a chain that starts from its process's end, and {name} remembers")
    guidance = getattr(policy, "guidance", None)
    if guidance is not None:  # it would lead what is drawn, and not what learns
        raise InputError(
            f"guidance must be None where actions are learned, got {type(guidance).__name__}; guide the policy after "
            "it is trained, by with_guidance"
        )
    if getattr(policy, "level", None) is not None:  # what is drawn would begin elsewhere than what learns
        raise InputError(
            f"chains must begin from noise where actions are learned, got one that begins at level {policy.level}; "
            "take with_start(None), and give a start to the policy that was trained"
        )
    if policy.head.x0_is == "action":
        return
    if policy.draws:
        raise InputError(
            f"{name} denoises parameters of a law; use a TokenHead or a VectorHead, whose x_0 is the action"
        )
    policy.check_law()


def check_drops_nothing(policy: nn.Module, what: str) -> None:
    """Refuses policies of which conditions are to be left out, for losses that never do so.

    Args:
        policy: any. what: the loss, with its article, for the message.

    Raises:
        InputError: its `condition_drop` is above 0, so that what stands for a condition would stay untrained.
    """
    chance = getattr(policy, "condition_drop", 0.0)
    if chance:
        raise InputError(
            f"condition_drop must be 0 under {what}, which never leaves out a condition, got {chance:g}; imitation of "
            "chains, QVPO, QDFM and forward mirror descent do"
        )


def action_losses(policy: Policy, observation: Tensor, action: Tensor, mask: Tensor | None, turns: int = 1) -> Tensor:
    """How badly a policy gives actions, `[.., M]`, with gradients to its parameters; draws from its generator.

    Of a chain of tokens the bound of `TokenImitationLoss`; of a chain of numbers the squared error of what it predicts
    at a step t that is drawn alike from 1..I (Ho et al. 2020, arXiv 2006.11239, eq. 14), a mean over the numbers of
    x_0; of a policy without a chain minus the log-probability. So a control without a chain learns by the same
    objective.

    Args:
        policy: one that `check_learns_actions` takes.
        observation: `[.., M, F]`. action: `[.., M, *event]`. mask: allowed choices, bool `[.., M, W]`, or None.
        turns: how many rows in a row belong together, a divisor of M: their steps are spread over 1..I, too.
    """
    if not isinstance(policy, DiffusionPolicy):
        return -policy.head.log_prob(policy.law(observation, None, mask), action)
    generator = generator_on(policy.generator, observation.device)
    rows = observation.shape[:-1]
    when = torch.rand(*rows[:-1], 1, generator=generator, device=generator.device).to(observation.device)
    t = spread(when, rows[-1], policy.process.steps, turns)
    x0 = policy.head.encode(action)
    if isinstance(policy.process, TokenProcess):
        noise = torch.rand(x0.shape, generator=generator, device=generator.device).to(observation.device)
        allowed = policy.allowed_tokens(mask, rows)
        x = policy.process.corrupt(x0, t, noise, allowed)
        return token_errors(policy, observation, x0, x, t, allowed, policy.drops(rows))
    noise = torch.randn(x0.shape, generator=generator, device=generator.device).to(x0)
    return denoising_errors(policy, observation, x0, t, noise, policy.drops(rows))
