"""`LossGraph`: an objective's losses and their gradients as one compiled graph."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from diffpolicy.objectives.protocols import PureLosses


class LossGraph:
    """An objective whose pure `losses` and their gradients come from one compiled graph.

    Losses that are compiled alone give a graph for the way there and one for the way back, and autograd hands on and
    adds up tensors between them. Here `torch.func.grad_and_value` of the whole is compiled; what it gives waits until
    `give` puts it where an optimiser looks for gradients.

    Args:
        objective: a LossModule whose `losses` give what its `out_keys` name, in their order. Those named `loss*` are
            added up.
    """

    def __init__(self, objective: PureLosses) -> None:
        pure, names = _Pure(objective), objective.out_keys
        self.objective: Any = objective
        self.parameters: dict[str, Tensor] = {name: p for name, p in pure.named_parameters() if p.requires_grad}
        self.gradients: dict[str, Tensor] = {}

        def total(parameters: dict[str, Tensor], args: Any, kwargs: Any) -> tuple[Tensor, Any]:
            values = torch.func.functional_call(pure, parameters, args, kwargs)
            each = values if isinstance(values, tuple) else (values,)
            return sum(v for name, v in zip(names, each, strict=True) if name.startswith("loss")), values

        self.graph = torch.compile(torch.func.grad_and_value(total, has_aux=True))

    def __call__(self, rows: TensorDict) -> TensorDict:
        """What the objective writes of rows; only what it adds to its pure losses has a gradient of its own."""
        self.objective.__dict__["losses"] = self._losses  # while it reads them, so that no copy takes it along
        try:
            written: TensorDict = self.objective(rows)
        finally:
            del self.objective.__dict__["losses"]
        return written

    def _losses(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            self.gradients, (_, values) = self.graph(self.parameters, args, kwargs)
        return values

    def give(self) -> None:
        """Puts the gradients of the last call into the parameters, in the place of those before."""
        for name, parameter in self.parameters.items():
            gradient = self.gradients[name]
            if gradient.stride() != parameter.stride():  # a fused optimiser goes by memory, not by strides
                gradient = torch.empty_like(parameter).copy_(gradient)
            parameter.grad = gradient


class _Pure(nn.Module):
    """An objective as a module whose `forward` is its pure function. Args: objective: of `LossGraph`."""

    def __init__(self, objective: Any) -> None:
        super().__init__()
        self.objective = objective
        self.losses = type(objective).losses.__get__(objective)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.losses(*args, **kwargs)
