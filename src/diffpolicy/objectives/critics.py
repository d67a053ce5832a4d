"""Whether a critic fits a policy, found out before anything is trained."""

from __future__ import annotations

import torch
from torch import nn

from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.policies.policy import Policy


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
    if isinstance(critic, CriticEnsemble) and critic.stack != policy.agents:
        raise InputError(f"the critic has networks for stack={critic.stack} agents, and the policy for {policy.agents}")
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
