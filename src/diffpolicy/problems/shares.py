"""Shares of a whole: what an action of any numbers means, and transitions of decisions that change nothing to come."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from diffpolicy.environments import step_transitions
from diffpolicy.policies.keys import Keys


def shares_of(action: Tensor, allowed: Tensor | None = None, least: float = 0.0) -> Tensor:
    """Shares that sum to one, max(a, 0) / sum max(a, 0) over the allowed choices; equal ones where nothing is left.

    Numbers from -1 to 1 give shares of exactly 0 with a whole range, and shares are themselves.

    Args:
        action: any numbers, `[*, M]`.
        allowed: bool `[*, M]`, at least one of M; None: all are.
        least: shares below it are left out, of those that remain the whole.

    Returns:
        Shares `[*, M]`.

    Example:
        >>> shares_of(torch.tensor([0.6, -0.3, 0.2]))
        tensor([0.7500, 0.0000, 0.2500])
    """
    may = torch.ones_like(action, dtype=torch.bool) if allowed is None else allowed
    part = action.clamp_min(0).masked_fill(~may, 0.0)
    whole = part.sum(-1, keepdim=True)
    part = torch.where(whole > 0, part / whole.clamp_min(1e-12), may / may.sum(-1, keepdim=True))
    if least:
        # 1 / M of a whole can be below `least`, the largest share stays in any case
        kept = part.masked_fill((part < least) & (part < part.amax(-1, keepdim=True)), 0.0)
        part = kept / kept.sum(-1, keepdim=True)
    return part


def lone_transitions(rollout: TensorDictBase, keys: Keys) -> TensorDict:
    """Transitions of decisions after which everything is drawn anew, so that none has a value to come.

    Args:
        rollout: `[E, T]`. keys: of its environment.

    Returns:
        What `step_transitions` gives, every next state terminated.

    Example:
        >>> from diffpolicy.policies.keys import Keys
        >>> env = Clinic(2)
        >>> rows = lone_transitions(env.rollout(3, RandomRule(env)), Keys.of(env))
        >>> rows["next", "terminated"].all().item()
        True
    """
    rows = step_transitions(rollout, keys)
    for name in ("terminated", "done"):
        rows.set(("next", name), torch.ones_like(rows["next", name]))
    return rows
