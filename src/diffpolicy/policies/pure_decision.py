"""`PureDecision`: what a policy decides as a pure function of named tensors; `DecisionInput`: what describes one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from diffpolicy.policies.protocols import OwnsGenerator

Module = TypeVar("Module", bound=nn.Module)


def in_eval_mode(policy: Module) -> Module:
    """A twin in `eval` mode that shares all tensors and the generator, so that the policy's own mode stays as it is."""
    parts: list[Any] = [*policy.parameters(), *policy.buffers()]
    if isinstance(policy, OwnsGenerator):
        parts.append(policy.generator)
    twin = copy.deepcopy(policy, {id(part): part for part in parts})
    return twin.eval()


@dataclass(frozen=True)
class DecisionInput:
    """An input or output of a decision.

    Args:
        name: e.g. `observation`, `latent`, `noise`, `uniform` or `mask`; of outputs `action`, `logits`, `next_latent`.
        shape: with names for sizes that are free, such as "rows" for the number M of rows, e.g. `["rows", 22]`.
        dtype: `float32`, `int64` or `bool`.
        meaning: one line.
        between: what values to try it on are drawn from, uniformly; None: from N(0, 1). The upper end of an `int64`
            may be the name of a size.

    Example:
        >>> rows = DecisionInput("uniform", ("rows", 3), "float32", "independent draws of U[0, 1)", (0.0, 1.0))
        >>> rows.random(rows=2, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3])
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str
    between: tuple[float, float | str] | None = None

    def random(self, rows: int, generator: torch.Generator, **sizes: int) -> Tensor:
        """Values to try a decision on.

        Args:
            rows: M, how many. generator: draws them. sizes: the other free sizes by name.

        Returns:
            A tensor of the input's shape and type.
        """
        known = {"rows": rows, **sizes}
        shape = [known[n] if isinstance(n, str) else n for n in self.shape]
        if self.dtype == "bool":
            mask = torch.rand(shape, generator=generator) < 0.7
            mask[..., 0] = True
            return mask
        if self.between is None:
            return torch.randn(shape, generator=generator)
        low, high = self.between
        high = known[high] if isinstance(high, str) else high
        if self.dtype == "int64":
            return torch.randint(int(low), int(high), shape, generator=generator)
        return low + (high - low) * torch.rand(shape, generator=generator)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype, "meaning": self.meaning}


class PureDecision(nn.Module):
    """Base of decisions that can be exported; a subclass sets `inputs` and `outputs`, and decides as in `eval` mode.

    `forward` takes the inputs and gives the outputs, in their order; `action` is the first of these. A policy whose
    rows are not observations has a method `decision()` that gives its own.
    """

    trials: ClassVar[Sequence[Mapping[str, int]]] = ({"rows": 1}, {"rows": 7}, {"rows": 64})
    """Sizes on which an export is tried."""
    inputs: tuple[DecisionInput, ...]
    outputs: tuple[DecisionInput, ...]

    def frozen(self) -> AbstractContextManager[None]:
        """While it lasts, what does not depend on the inputs is constant, so that a graph need not compute it."""
        return nullcontext()

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Inputs by name. Args: tensors: in their order."""
        return dict(zip((i.name for i in self.inputs), tensors, strict=True))

    def allows(self, action: Tensor, inputs: Sequence[Tensor], outputs: Sequence[Tensor], tolerance: float) -> Tensor:
        """Whether choices are right but for rounding, bool of the action's shape.

        Args:
            action: of an export. inputs, outputs: of the decision, in their order.
            tolerance: of a number, relative to the larger of it and 1.
        """
        raise NotImplementedError


@runtime_checkable
class DecidesPurely(Protocol):
    """Has a pure decision of its own, about other rows than observations."""

    def decision(self) -> PureDecision:
        """What `export_decision` writes."""
