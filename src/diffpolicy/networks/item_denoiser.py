"""`ItemDenoiser`: attention over the items of a row, each of which sees what the others tentatively choose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.networks.denoiser import TimeEmbedding
from diffpolicy.networks.dense import Dense, width_of


class ItemDenoiser(nn.Module):
    """Predicts y = out(h_L) of n items, from h_0 = x W_x + c W_c + time(i) by L blocks of attention.

    A block is h + attention(norm(h)), then h + MLP(norm(h)) (Vaswani et al. 2017, norm first). All items share the
    parameters, so whoever permutes items finds the outputs permuted alike, and any number of them is taken.

    Args:
        width: of x, of one item, W. features: of one item's condition, F.
        steps: of the chain, I. hidden: width of h. heads: of the attention, a divisor of `hidden`. blocks: L.
        flagged: whether the last feature says if an item exists, 1 or 0; one that does not is seen by nobody.
        generator: draws the initial values.

    Raises:
        InputError: a width is out of range, or `hidden` is no multiple of `heads`.

    Example:
        >>> denoiser = ItemDenoiser(4, 3, steps=5)
        >>> denoiser(torch.zeros(8, 6, 4), 1, denoiser.prepare(torch.zeros(8, 6, 3))).shape
        torch.Size([8, 6, 4])
    """

    reads_items = True

    def __init__(
        self,
        width: int,
        features: int,
        steps: int,
        *,
        hidden: int = 64,
        heads: int = 4,
        blocks: int = 2,
        flagged: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.width, self.features, self.steps = (
            width_of(value, name) for name, value in (("width", width), ("features", features), ("steps", steps))
        )
        self.hidden, self.heads = width_of(hidden, "hidden"), width_of(heads, "heads")
        self.blocks, self.flagged = check.integer(blocks, "blocks", least=1, most=100), check.flag(flagged, "flagged")
        if hidden % heads:
            raise InputError(f"hidden must be a multiple of heads, got {hidden} and {heads}")
        self.of_x = Dense(width, hidden, None, generator)
        self.of_condition = Dense(features, hidden, None, generator, bias=False)
        self.embedding = TimeEmbedding(steps, 16, None, generator)
        self.of_time = Dense(16, hidden, None, generator, bias=False)
        self.layers = nn.ModuleList(_Block(hidden, heads, generator) for _ in range(blocks))
        self.out = Dense(hidden, width, None, generator)

    def to_dict(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON holds them."""
        names = ("width", "features", "steps", "hidden", "heads", "blocks", "flagged")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ItemDenoiser:
        """The denoiser that `to_dict` described, with fresh parameters."""
        return cls(**data)

    def prepare(self, condition: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the chain does not change: condition, times, and who is seen. Args: condition: `[.., n, F]`."""
        seen = condition[..., -1] > 0.5 if self.flagged else None
        return self.of_condition(condition), self.of_time(self.embedding()), seen

    def forward(self, x: Tensor, i: int | Tensor, prepared: tuple[Tensor, Tensor, Tensor | None]) -> Tensor:
        """What is predicted, `[.., n, W]`. Args: x: `[.., n, W]`. i: 1..I, `[..]`. prepared: of `prepare`."""
        condition, time, seen = prepared
        at = time[i - 1]
        h = self.of_x(x) + condition + (at.unsqueeze(-2) if isinstance(i, Tensor) else at)
        for layer in self.layers:
            h = layer(h, seen)
        return self.out(h)  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Attention of items to each other, then a layer of each alone. Args: of `ItemDenoiser`."""

    def __init__(self, hidden: int, heads: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Dense(hidden, 3 * hidden, None, generator)
        self.mixed = Dense(hidden, hidden, None, generator)
        self.wide = Dense(hidden, 2 * hidden, None, generator)
        self.narrow = Dense(2 * hidden, hidden, None, generator)
        self.first, self.second, self.act = nn.LayerNorm(hidden), nn.LayerNorm(hidden), nn.Mish()

    def forward(self, h: Tensor, seen: Tensor | None) -> Tensor:
        """`[.., n, H]`. Args: h: `[.., n, H]`. seen: which items are looked at, bool `[.., n]`; None: all."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for x in self.qkv(self.first(h)).chunk(3, -1))
        score = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if seen is not None:
            # finite, so that a row of which no item exists has a softmax too
            score = score.masked_fill(~seen[..., None, None, :], torch.finfo(score.dtype).min / 2)
        h = h + self.mixed((score.softmax(-1) @ v).transpose(-2, -3).flatten(-2))
        return h + self.narrow(self.act(self.wide(self.second(h))))  # type: ignore[no-any-return]
