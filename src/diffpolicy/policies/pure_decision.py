"""`PureDecision`: what a policy decides as a pure function of named tensors."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from diffpolicy._decision_input import DecisionInput as DecisionInput
from diffpolicy.policies.masks import NO_CHOICE
from diffpolicy.policies.protocols import OwnsGenerator

Module = TypeVar("Module", bound=nn.Module)


def in_eval_mode(policy: Module) -> Module:
    """A twin in `eval` mode that shares all tensors and the generator, so that the policy's own mode stays as it is."""
    parts: list[Any] = [*policy.parameters(), *policy.buffers()]
    if isinstance(policy, OwnsGenerator):
        parts.append(policy.generator)
    twin = copy.deepcopy(policy, {id(part): part for part in parts})
    return twin.eval()


def finite_rows(specs: Sequence[DecisionInput], tensors: Sequence[Tensor], lead: Sequence[int | str]) -> Tensor:
    """Which rows hold finite numbers alone, bool of their shape: the sum of their sizes is finite too.

    A graph needs few nodes for that, of which each costs a decision about half a microsecond. Masks stand beside the
    numbers, although they are finite: a runtime would spread one of a single row over all rows, and joins none to them.

    Args:
        specs, tensors: inputs. lead: shape of rows, whose last entry is free; what stands around it is of one row.
    """
    beside: list[Tensor] = []
    for spec, given in zip(specs, tensors, strict=True):
        if spec.dtype in ("float32", "bool"):
            x = given.to(tensors[0].dtype) if spec.dtype == "bool" else given
            steps = spec.shape.index(lead[-1]) >= len(lead)  # draws of a chain's steps stand before the rows
            for each in [x[k] for k in range(x.shape[0])] if steps else [x]:
                own = each.ndim - len(lead)
                beside.append(each if own == 1 else each.unsqueeze(-1) if own == 0 else each.flatten(len(lead)))
    whole = torch.cat(beside, -1) if len(beside) > 1 else beside[0]
    right: Tensor = torch.linalg.vector_norm(whole, 1, -1) < torch.inf
    return right


def refused(action: Tensor, right: Tensor) -> Tensor:
    """Actions with none in some rows: -1, no choice of a one-hot vector, or nan. Args: right: the others, bool."""
    wrong = ~right
    while wrong.ndim < action.ndim:
        wrong = wrong.unsqueeze(-1)
    if action.is_floating_point():
        return action.masked_fill(wrong, torch.nan)
    return action & ~wrong if action.dtype == torch.bool else action.masked_fill(wrong, NO_CHOICE)


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

    def nearest(
        self, theirs: Sequence[Tensor], inputs: Sequence[Tensor], ours: Sequence[Tensor], tolerance: float
    ) -> Sequence[Tensor]:
        """Of the outputs that are right, whichever way rounding breaks a tie, those that are nearest to an export's.

        Args:
            theirs: outputs of an export. inputs, ours: of the decision. All in their order.
            tolerance: of a number, relative to the larger of it and 1.
        """
        return ours

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
