"""`RandomRule`: every allowed choice alike, whatever the action is."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Bounded, Categorical, MultiCategorical, OneHot
from torchrl.envs import EnvBase

from diffpolicy.environments.chosen import aligned, choices_of, counts_of
from diffpolicy.errors import InputError
from diffpolicy.policies.draws import Draws
from diffpolicy.policies.masks import as_mask, mark_no_choice, readable


class RandomRule(TensorDictModuleBase):
    """Draws each action uniformly among what its spec and its mask allow, from a generator of its own.

    Args:
        env: its actions are categorical, multi-categorical, one-hot, multi-one-hot or bounded; a mask stands beside
            the action as its key with `_mask` at the end, and `valid` tells which items exist.
        seed: of the draws.

    Raises:
        InputError: an action is none of these; when acting, a mask allows nothing for an item that exists, in an
            environment that is not done. Where values cannot be read, traced or on a GPU, such an item's choice is -1.

    Example:
        >>> env = Clinic(3000)
        >>> choices = RandomRule(env, seed=1)(env.reset())["action"]
        >>> [round(float((choices == a).float().mean()), 1) for a in range(3)]
        [0.3, 0.3, 0.3]
    """

    def __init__(self, env: EnvBase, seed: int = 0) -> None:
        super().__init__()
        self.generator = Draws(seed)
        self.specs = choices_of(env)
        for key, spec, *_ in self.specs:
            if not isinstance(spec, (Categorical, MultiCategorical, OneHot, Bounded)):
                raise InputError(f"no uniform law is known for action {key!r}, a {type(spec).__name__}")
        self.in_keys = [name for _, _, *read in self.specs for name in read if name is not None]
        self.out_keys = [key for key, *_ in self.specs]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        lead = tensordict.batch_size
        for key, spec, mask_key, valid_key in self.specs:
            shape = torch.Size([*lead, *spec.shape[len(lead) :]])
            mask = None if mask_key is None else as_mask(tensordict[mask_key], mask_key)
            if isinstance(spec, Bounded):
                tensordict.set(key, self._within(spec, shape, mask))
                continue
            items = shape[:-1] if isinstance(spec, (MultiCategorical, OneHot)) else shape
            counts = counts_of(spec)
            masks = [None] * len(counts) if mask is None else [aligned(m, items) for m in mask.split(counts, -1)]
            for part in masks:
                if part is not None and readable(part):
                    _refuse(part, tensordict, mask_key, valid_key, items)
            chosen = [self._choose(n, items, part) for n, part in zip(counts, masks, strict=True)]
            tensordict.set(key, _written(spec, chosen))
        return tensordict

    def _within(self, spec: Any, shape: torch.Size, mask: Tensor | None) -> Tensor:
        """Uniform within bounds, 0 where a mask of the numbers forbids one. Args: mask: bool, or None."""
        low, high = spec.space.low[0], spec.space.high[0]
        drawn: Tensor = low + (high - low) * torch.rand(shape, generator=self.generator)
        if mask is not None and mask.shape[-1] == shape[-1]:
            drawn = drawn.masked_fill(~aligned(mask, shape[:-1]).cpu(), 0.0)
        return drawn.to(spec.dtype)

    def _choose(self, choices: int, items: torch.Size, mask: Tensor | None) -> Tensor:
        """Uniform among the allowed choices, int64 `[*items]`. Args: mask: bool, broadcastable to `[*items, n]`."""
        noise = torch.rand(*items, choices, generator=self.generator)
        if mask is None:
            return noise.argmax(-1)
        choice = noise.to(mask.device).masked_fill(~mask, -1).argmax(-1)
        return choice if readable(mask) else mark_no_choice(choice, mask)


def _written(spec: Any, chosen: list[Tensor]) -> Tensor:
    """Choices of slots, each `[*items]`, as the spec has them; a one-hot action of no choice is all zeros."""
    if isinstance(spec, MultiCategorical):
        return torch.stack(chosen, -1).to(spec.dtype)
    if isinstance(spec, OneHot):
        counts = zip(chosen, counts_of(spec), strict=True)
        hot = [choice.unsqueeze(-1) == torch.arange(n, device=choice.device) for choice, n in counts]
        return torch.cat(hot, -1).to(spec.dtype)
    return chosen[0].to(spec.dtype)


def _refuse(mask: Tensor, td: TensorDictBase, mask_key: NestedKey, valid_key: NestedKey | None, items: Any) -> None:
    """Raises InputError at an item that exists, where nothing is done yet, and that is allowed nothing."""
    none = ~mask.any(-1).expand(items)
    if not none.any():
        return
    if valid_key is not None:
        none = none & td[valid_key].cpu()
    done = td.get("done", None)
    if done is not None:
        over = done.cpu().reshape(*td.batch_size, -1).any(-1)
        none = none & ~over.view(*td.batch_size, *[1] * (none.ndim - td.batch_dims))
    if none.any():
        raise InputError(f"the mask {mask_key!r} allows no choice at {none.nonzero()[0].tolist()}")
