"""Critics: ensembles of action-value networks, alone or one ensemble for each agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from diffpolicy._deprecated import OldAttribute, keeps_keywords, with_keywords_of
from diffpolicy.networks.dense import MLP


def least(values: Tensor) -> Tensor:
    """The least of an ensemble's values, of the layout that they have. Args: values: `[K, ..]`."""
    return reduce(torch.minimum, values.unbind(0))


class CriticEnsemble(nn.Module):
    """K action-value networks for each agent, computed in one product.

    Args:
        inputs: width F of what a critic reads (the observation, and the latent if it is given).
        actions: values that it gives: the choices, A; 1 for the value of a state, or of a state and a vector.
        ensemble: K; 2 for twin critics.
        hidden: widths of the hidden layers.
        act: activation, `relu`, `mish`, `tanh` or `silu`.
        agents: G of them, each with parameters of its own, or None.
        generator: draws the initial values.

    Example:
        >>> CriticEnsemble(6, 3)(torch.zeros(8, 6)).shape  # K, rows, choices
        torch.Size([2, 8, 3])
        >>> CriticEnsemble(6, 3, agents=4)(torch.zeros(4, 8, 6)).shape  # K, agents, rows, choices
        torch.Size([2, 4, 8, 3])
    """

    stack = OldAttribute("agents")

    @keeps_keywords
    def __init__(
        self,
        inputs: int,
        actions: int,
        ensemble: int = 2,
        hidden: Sequence[int] = (20, 20),
        act: str = "relu",
        agents: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.ensemble, self.agents = ensemble, agents
        self._options = {"inputs": inputs, "actions": actions, "hidden": [int(width) for width in hidden], "act": act}
        self.mlp = MLP(inputs, actions, hidden, act, ensemble * (agents or 1), generator)

    def to_dict(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON holds them."""
        return {**self._options, "ensemble": self.ensemble, "agents": self.agents}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CriticEnsemble:
        """The critics that `to_dict` described, with fresh parameters."""
        return cls(**with_keywords_of(cls, data))

    def forward(self, x: Tensor) -> Tensor:
        """Values `[K, M, A]` of `[M, F]`, or `[K, G, M, A]` of `[G, M, F]`."""
        lead = x.shape[:-2]
        value: Tensor = self.mlp(x.expand(self.ensemble, *x.shape).reshape(-1, *x.shape[-2:]))
        return value.view(self.ensemble, *lead, *value.shape[-2:])
