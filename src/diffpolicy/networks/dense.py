"""Dense layers: one, or one for each of G agents, applied in one batched product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._deprecated import OldAttribute, keeps_keywords

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "mish": nn.Mish, "tanh": nn.Tanh, "silu": nn.SiLU}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "mish": functional.mish,
    "tanh": torch.tanh_,
    "silu": functional.silu,
}
"""What the modules compute, in place where that leaves the gradient known: give them what nobody else reads.

Half the tensors of a training step are then never made, and the others stay in the processor's cache.
"""

WIDEST = 10**6
"""A wider layer is a slip, and would only exhaust the memory."""


def width_of(value: Any, name: str) -> int:
    """A layer's width, a whole number from 1 to `WIDEST`."""
    return check.integer(value, name, least=1, most=WIDEST)


def activation(name: str) -> nn.Module:
    """A module by its name."""
    check.choice(name, "activation", ACTIVATIONS)
    return ACTIVATIONS[name]()


class Columns(NamedTuple):
    """The layers of G agents for rows that stand last in memory, from `[G, in, M]` to `[G, out, M]`.

    Products of small matrices, softmax and sums then run along many rows instead of along a few numbers, which takes a
    CPU half as long.

    Args:
        weight: `[G, out, in]`. bias: `[G, out, 1]`, or None.
    """

    weight: Tensor
    bias: Tensor | None

    def of(self, x: Tensor) -> Tensor:
        """W x + b. Args: x: `[G, in, M]`."""
        return torch.bmm(self.weight, x) if self.bias is None else torch.baddbmm(self.bias, self.weight, x)


def through(layers: Sequence[Columns], act: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Layers with an activation between them, `[G, out, M]`. Args: x: `[G, in, M]`."""
    for k, layer in enumerate(layers):
        x = layer.of(act(x) if k else x)
    return x


class Dense(nn.Module):
    """y = x W + b, from `[*, in]` to `[*, out]`, or of G agents from `[G, M, in]` to `[G, M, out]`.

    Args:
        inputs, outputs: widths.
        agents: G of them, each with a layer of its own, or None for a single layer.
        generator: draws the initial values, U(-1/sqrt(in), 1/sqrt(in)), as `torch.nn.Linear` does.
        fan_in: what to put for `in` in the initial range, where the layer is a part of a wider one.
        bias: whether there is a b.

    Example:
        >>> Dense(6, 3, agents=None)(torch.zeros(8, 6)).shape, Dense(6, 3, agents=4)(torch.zeros(4, 8, 6)).shape
        (torch.Size([8, 3]), torch.Size([4, 8, 3]))
    """

    stacked = OldAttribute("per_agent")

    @keeps_keywords
    def __init__(
        self,
        inputs: int,
        outputs: int,
        agents: int | None,
        generator: torch.Generator | None = None,
        *,
        fan_in: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        counts = {"agents": agents or 1, "inputs": inputs, "outputs": outputs}
        check.product(counts, _limits.PARAMETERS, "the parameters of a layer")
        lead = () if agents is None else (agents,)
        bound = (fan_in or inputs) ** -0.5
        weight = torch.empty(*lead, inputs, outputs).uniform_(-bound, bound, generator=generator)
        self.weight = nn.Parameter(weight)
        row = (1,) if lead else ()
        offset = torch.empty(*lead, *row, outputs).uniform_(-bound, bound, generator=generator) if bias else None
        self.bias = None if offset is None else nn.Parameter(offset)

    @property
    def per_agent(self) -> bool:
        """Whether there is a layer for each of G agents."""
        return self.weight.ndim == 3

    def columns(self) -> Columns:
        """The layers of G agents, for rows that stand last."""
        return Columns(self.weight.mT, None if self.bias is None else self.bias.mT)

    def forward(self, x: Tensor) -> Tensor:
        if self.per_agent:
            return self.columns().of(x.mT).mT
        return x @ self.weight if self.bias is None else x @ self.weight + self.bias


class MLP(nn.Module):
    """Dense layers with an activation between them, of one or of G agents.

    Args:
        inputs, outputs: widths.
        hidden: widths of the hidden layers.
        act: activation, `relu`, `mish`, `tanh` or `silu`.
        agents: G of them, each with a network of its own, or None.
        generator: draws the initial values.

    Example:
        >>> MLP(6, 3, hidden=(20, 20))(torch.zeros(8, 6)).shape
        torch.Size([8, 3])
        >>> MLP(6, 3, agents=4)(torch.zeros(4, 8, 6)).shape  # a network for each of 4 agents, in one product
        torch.Size([4, 8, 3])
    """

    @keeps_keywords
    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (20, 20),
        act: str = "relu",
        agents: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        hidden = [width_of(width, f"hidden[{k}]") for k, width in enumerate(check.sequence(hidden, "hidden"))]
        widths = [width_of(inputs, "inputs"), *hidden, width_of(outputs, "outputs")]
        layers: list[nn.Module] = []
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [Dense(a, b, agents, generator), activation(act)]
        self.layers = nn.Sequential(*layers[:-1])
        self.act = FUNCTIONS[act]

    def columns(self) -> list[Columns]:
        """The layers of G agents, for rows that stand last."""
        return [layer.columns() for layer in self.layers if isinstance(layer, Dense)]

    def forward(self, x: Tensor) -> Tensor:
        """From `[*, in]` (of G agents: `[G, M, in]`) to `[*, out]`."""
        if next(iter(self.layers)).per_agent:
            return through(self.columns(), self.act, x.mT).mT
        return self.layers(x)  # type: ignore[no-any-return]
