"""Dense layers, alone or stacked: one layer for each of G agents, applied in one batched product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.errors import InputError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "mish": nn.Mish, "tanh": nn.Tanh, "silu": nn.SiLU}


WIDEST = 10**6
"""A wider layer is a slip, and would only exhaust the memory."""


def width_of(value: Any, name: str) -> int:
    """A layer's width, a whole number from 1 to `WIDEST`."""
    return check.integer(value, name, least=1, most=WIDEST)


def activation(name: str) -> nn.Module:
    """A module by its name."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise InputError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


class Dense(nn.Module):
    """y = x W + b, from `[*, in]` to `[*, out]`, or for a stack of G from `[G, M, in]` to `[G, M, out]`.

    Args:
        inputs, outputs: widths.
        stack: G, or None for a single layer.
        generator: draws the initial values, U(-1/sqrt(in), 1/sqrt(in)), as `torch.nn.Linear` does.
        fan_in: what to put for `in` in the initial range, where the layer is a part of a wider one.
        bias: whether there is a b.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stack: int | None,
        generator: torch.Generator | None = None,
        *,
        fan_in: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        counts = {"agents": stack or 1, "inputs": inputs, "outputs": outputs}
        check.product(counts, _limits.PARAMETERS, "the parameters of a layer")
        lead = () if stack is None else (stack,)
        bound = (fan_in or inputs) ** -0.5
        weight = torch.empty(*lead, inputs, outputs).uniform_(-bound, bound, generator=generator)
        self.weight = nn.Parameter(weight)
        row = (1,) if lead else ()
        offset = torch.empty(*lead, *row, outputs).uniform_(-bound, bound, generator=generator) if bias else None
        self.bias = None if offset is None else nn.Parameter(offset)

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return x @ self.weight
        if self.weight.ndim == 3:
            return torch.baddbmm(self.bias, x, self.weight)
        return x @ self.weight + self.bias


class MLP(nn.Module):
    """Dense layers with an activation between them, alone or stacked.

    Args:
        inputs, outputs: widths.
        hidden: widths of the hidden layers.
        act: name of the activation.
        stack: G, or None.
        generator: draws the initial values.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (20, 20),
        act: str = "relu",
        stack: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        hidden = [width_of(width, f"hidden[{k}]") for k, width in enumerate(check.sequence(hidden, "hidden"))]
        widths = [width_of(inputs, "inputs"), *hidden, width_of(outputs, "outputs")]
        layers: list[nn.Module] = []
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [Dense(a, b, stack, generator), activation(act)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """From `[*, in]` (stacked: `[G, M, in]`) to `[*, out]`."""
        return self.layers(x)  # type: ignore[no-any-return]
