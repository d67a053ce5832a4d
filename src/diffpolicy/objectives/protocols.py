"""What objectives may do beside giving losses: who has what one of these protocols names is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from tensordict import TensorDict, TensorDictBase


@runtime_checkable
class ChecksRows(Protocol):
    """Knows which transitions it can be trained on."""

    def check_rows(self, td: TensorDictBase) -> None:
        """Raises InputError if these are others."""


@runtime_checkable
class BeginsUpdates(Protocol):
    """Adds to an update's rows what its ratios ask of the parameters before it, so that acting need not record it."""

    def begin(self, rows: TensorDict) -> TensorDict:
        """The rows with it, `[M]` or `[G, M]`."""


@runtime_checkable
class ReadsDraws(BeginsUpdates, Protocol):
    """Begins updates from what chains drew, so that acting records that, under `draws`, and nothing else."""

    reads_draws: bool


@runtime_checkable
class PureLosses(Protocol):
    """Computes its losses by a pure function, which may be compiled: it gives what `out_keys` name, in their order."""

    losses: Callable[..., Any]
    out_keys: Any
