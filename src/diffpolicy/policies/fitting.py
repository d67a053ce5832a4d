"""Whether a policy's own networks fit each other: what `embed` gives, and what they make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policies.pure_decision import in_eval_mode

if TYPE_CHECKING:
    from diffpolicy.policies.policy import Policy

Result = TypeVar("Result")
ROWS = 2


def check_networks(policy: Policy) -> None:
    """Tries `embed`, the networks and the head on zeros, without drawing a number or changing a statistic.

    Args:
        policy: any; one that gives no `output` is not tried.

    Raises:
        InputError: a part cannot read what another gives, or gives another shape.
    """
    twin = in_eval_mode(policy)
    like = next(iter(policy.parameters()), torch.zeros(()))
    lead = (ROWS,) if policy.agents is None else (policy.agents, ROWS)
    name = type(policy).__name__

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=like.dtype, device=like.device)

    with torch.no_grad():
        features = f"{policy.observation_dim} features"
        condition = _tried(lambda: twin.condition(zeros(*lead, policy.observation_dim)), f"embed of {name}", features)
        if not isinstance(condition, Tensor) or condition.shape != (*lead, policy.condition_dim):
            raise InputError(
                f"embed of {name} must give condition_dim={policy.condition_dim} features of a row, "
                f"{[*lead, policy.condition_dim]}, got {_shape(condition)}; a policy whose embed has another width is "
                "made by from_specs(env, condition_dim=...)"
            )
        width = policy.head.slots if policy.head.tokens else policy.choices
        latent = zeros(*lead, width) if policy.reads_latent else None
        latent = latent.long() if latent is not None and policy.head.tokens else latent
        noise = zeros(policy.draws, *lead, width) if policy.draws else None
        read = f"a condition of {policy.condition_dim} and x of {policy.choices} features"
        try:
            x0 = _tried(lambda: twin.end(condition, latent, noise), f"the network of {name}", read)
        except NotImplementedError:
            return
        if not isinstance(x0, Tensor) or x0.shape != (*lead, width):
            raise InputError(
                f"the network of {name} must give {width} numbers of a row, {[*lead, width]}, got {_shape(x0)}"
            )


def _tried(run: Callable[[], Result], what: str, read: str) -> Result:
    """What a part makes of zeros; what torch says of shapes or devices in our words."""
    try:
        return run()
    except (InputError, NotImplementedError):
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{what} cannot read {read}: {reason}") from None


def _shape(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
