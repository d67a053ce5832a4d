"""`SlotsHead`: what heads of several choices share, however they are decided: slots, masks and one-hot vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from operator import index

import torch
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.heads.head import Head


class SlotsHead(Head):
    """A head of K slots, of n_1, ..., n_K choices. A subclass is a dataclass with both fields.

    Attributes:
        nvec: n_1, ..., n_K. one_hot: whether the action is written as one-hot vectors side by side.
    """

    nvec: tuple[int, ...]
    one_hot: bool

    @property
    def most(self) -> int:
        """The greatest n_k."""
        return max(self.nvec)

    @property
    def width(self) -> int:
        """Numbers of a law of x_0, K times the greatest n_k."""
        return len(self.nvec) * self.most

    @property
    def slots(self) -> int:
        return len(self.nvec)

    @property
    def written_as(self) -> torch.dtype:
        return torch.bool if self.one_hot else torch.int64

    @property
    def mask_width(self) -> int:
        return sum(self.nvec)

    def first(self) -> Tensor:
        return torch.cat([torch.arange(n, device="cpu") == 0 for n in self.nvec])

    def read_mask(self, mask: Tensor) -> Tensor:
        """From TorchRL's flat mask, `[.., sum of n_k]`, to one of x_0, `[.., K max n]`."""
        return padded_mask(mask, self.nvec)

    @property
    def feature_width(self) -> int:
        return self.width


def counts_of(values: Sequence[int], name: str) -> tuple[int, ...]:
    """Numbers of choices or items, as a tuple of whole numbers. Args: values: each at least 1. name: of the field.

    Raises:
        InputError: it is no list of such numbers.
    """
    try:
        if isinstance(values, (str, bytes, Set, Mapping)):  # they have no order, or digits for numbers
            raise TypeError
        # a number of NumPy or of a tensor is whole by its type, and a plain one by its value
        return tuple(check.integer(n if isinstance(n, (bool, float)) else index(n), name, least=1) for n in values)
    except (TypeError, InputError):
        raise InputError(f"{name} must be a list of whole numbers of at least 1, got {check.show(values)}") from None


def one_hots(choice: Tensor, nvec: tuple[int, ...]) -> Tensor:
    """Choices as one-hot vectors side by side, bool `[.., sum of n_k]`. Args: choice: int64 `[.., K]`. nvec: n_k."""
    parts = [torch.nn.functional.one_hot(c, n).bool() for c, n in zip(choice.unbind(-1), nvec, strict=True)]
    return torch.cat(parts, -1)


def of_one_hots(action: Tensor, nvec: tuple[int, ...]) -> Tensor:
    """What `one_hots` wrote, int64 `[.., K]`. Args: action: `[.., sum of n_k]`. nvec: n_k."""
    return torch.stack([part.byte().argmax(-1) for part in action.split(list(nvec), -1)], -1)


def none_of(action: Tensor, nvec: tuple[int, ...], *, one_hot: bool) -> Tensor:
    """Which actions hold a choice that there is not, bool `[..]`.

    Args:
        action: `[.., K]`, or one-hot vectors side by side. nvec: n_1, ..., n_K. one_hot: which of the two.
    """
    if one_hot:
        return torch.stack([part.long().sum(-1) != 1 for part in action.split(list(nvec), -1)], -1).any(-1)
    return ((action < 0) | (action >= torch.tensor(nvec, device=action.device))).any(-1)


def padded_mask(mask: Tensor, nvec: tuple[int, ...]) -> Tensor:
    """TorchRL's flat mask of several choices with as much room for each, `[.., K max n]`, false beyond n_k.

    Args:
        mask: `[.., sum of n_k]`. nvec: n_1, ..., n_K.

    Raises:
        InputError: it is of another width.
    """
    if mask.shape[-1] != sum(nvec):
        raise InputError(f"a mask of {sum(nvec)} choices is needed, got shape {list(mask.shape)}")
    most = max(nvec)
    parts = [torch.nn.functional.pad(part, (0, most - part.shape[-1])) for part in mask.split(list(nvec), -1)]
    return torch.cat(parts, -1)
