"""`Decision`: what a policy decides about rows, as a pure function of tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffpolicy.policies.choice import ChoicePolicy
from diffpolicy.policies.heads import mask_logits
from diffpolicy.policies.priors import ActionMemory


@dataclass(frozen=True)
class DecisionInput:
    """An input or output of a decision.

    Args:
        name: `observation`, `latent`, `noise`, `uniform` or `mask`; of outputs `action`, `logits` or `next_latent`.
        shape: with "rows" for the number M of rows, e.g. `["rows", 22]`.
        dtype: `float32`, `int64` or `bool`.
        meaning: one line.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str

    def random(self, rows: int, generator: torch.Generator) -> Tensor:
        """Values to try a decision on."""
        shape = [rows if n == "rows" else int(n) for n in self.shape]
        if self.dtype == "bool":
            mask = torch.rand(shape, generator=generator) < 0.7
            mask[..., 0] = True
            return mask
        if self.name == "uniform":
            return torch.rand(shape, generator=generator)
        return torch.randn(shape, generator=generator)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype, "meaning": self.meaning}


class Decision(nn.Module):
    """A policy's choice for rows; all that it draws and remembers goes in, and what it will remember comes out.

    Rows are `[M, ...]`, or `[G, M, ...]` for a policy with networks of its own for each of G agents (see
    `ChoicePolicy.for_agent`). Which inputs there are depends on the policy: `inputs` tells.

    Args:
        policy: any `ChoicePolicy`; it acts as in `eval` mode.

    Example:
        >>> decision = Decision(policy)
        >>> [i.name for i in decision.inputs]
        ['observation', 'latent', 'noise', 'uniform']
        >>> action, logits, next_latent = decision(*(i.random(1, generator) for i in decision.inputs))
    """

    def __init__(self, policy: ChoicePolicy) -> None:
        super().__init__()
        self.policy = policy.eval()
        lead: tuple[int | str, ...] = ("rows",) if policy.agents is None else (policy.agents, "rows")
        wide = (*lead, policy.choices)
        inputs = [DecisionInput("observation", (*lead, policy.observation_dim), "float32", "what is observed, raw")]
        self.remembers = isinstance(getattr(policy, "prior", None), ActionMemory)
        if self.remembers:
            inputs.append(DecisionInput("latent", wide, "float32", "what is remembered of the last decision"))
        draws = getattr(policy, "draws", 0)
        if draws:
            inputs.append(DecisionInput("noise", (draws, *wide), "float32", "independent draws of N(0, 1)"))
        if policy.draws_choice:
            inputs.append(DecisionInput("uniform", lead, "float32", "independent draws of U[0, 1)"))
        if policy.mask_key is not None:
            inputs.append(DecisionInput("mask", wide, "bool", "which choices are allowed"))
        self.inputs = tuple(inputs)
        outputs = [
            DecisionInput("action", lead, "int64", "the choice"),
            DecisionInput("logits", wide, "float32", "of the choices"),
        ]
        if self.remembers:
            outputs.append(DecisionInput("next_latent", wide, "float32", "what to remember, the next time's latent"))
        self.outputs = tuple(outputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in their order. Args: tensors: the inputs, in their order."""
        given = dict(zip((i.name for i in self.inputs), tensors, strict=True))
        policy, mask = self.policy, given.get("mask")
        condition = policy.condition(given["observation"])
        x0 = policy.output(condition, given.get("latent"), given.get("noise"))
        logits = mask_logits(policy.decode(x0, mask), mask)
        results = [policy.choose_at(logits, given.get("uniform")), logits]
        if self.remembers:
            results.append(policy.prior.stored(x0))
        return tuple(results)
