"""`RandomRule`: every allowed choice alike, whatever the action is."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, MultiCategorical, OneHot
from torchrl.envs import EnvBase

from diffpolicy.errors import InputError
from diffpolicy.policies.draws import Draws


class RandomRule(TensorDictModuleBase):
    """Draws each action uniformly among what its spec and its mask allow, from a generator of its own.

    Args:
        env: its actions are categorical, multi-categorical, one-hot or bounded; a mask stands beside the action as
            `action_mask`.
        seed: of the draws.

    Raises:
        InputError: an action is none of these.
    """

    def __init__(self, env: EnvBase, seed: int = 0) -> None:
        super().__init__()
        self.generator = Draws(seed)
        names = set(env.observation_spec.keys(True, True))
        self.specs: list[tuple[Any, Any, Any]] = []
        for key in env.action_keys:
            spec = env.full_action_spec[key]
            if not isinstance(spec, (Categorical, MultiCategorical, OneHot, Bounded)):
                raise InputError(f"no uniform law is known for action {key!r}, a {type(spec).__name__}")
            mask = (*key[:-1], "action_mask") if isinstance(key, tuple) else "action_mask"
            self.specs.append((key, spec, mask if mask in names else None))
        self.in_keys = [mask for _, _, mask in self.specs if mask is not None]
        self.out_keys = [key for key, _, _ in self.specs]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        for key, spec, mask_key in self.specs:
            mask = None if mask_key is None else tensordict[mask_key].bool()
            lead = tensordict.batch_size
            tensordict.set(key, self._draw(spec, torch.Size([*lead, *spec.shape[len(lead) :]]), mask))
        return tensordict

    def _draw(self, spec: Any, shape: torch.Size, mask: Tensor | None) -> Tensor:
        if isinstance(spec, Bounded):
            low, high = spec.space.low[0], spec.space.high[0]
            drawn: Tensor = low + (high - low) * torch.rand(shape, generator=self.generator)
            return drawn.to(spec.dtype)
        if isinstance(spec, MultiCategorical):
            nvec = spec.nvec if spec.nvec.ndim == 1 else spec.nvec[0]
            parts = [None] * len(nvec) if mask is None else mask.split(nvec.tolist(), -1)
            choices = [self._choose(int(n), shape[:-1], part) for n, part in zip(nvec, parts, strict=True)]
            return torch.stack(choices, -1).to(spec.dtype)
        if isinstance(spec, OneHot):
            index = self._choose(int(spec.space.n), shape[:-1], mask)
            return torch.nn.functional.one_hot(index, int(spec.space.n)).to(spec.dtype)
        return self._choose(int(spec.space.n), shape, mask).to(spec.dtype)

    def _choose(self, choices: int, shape: torch.Size, mask: Tensor | None) -> Tensor:
        """Uniform among the allowed choices, int64 of a shape."""
        noise = torch.rand(*shape, choices, generator=self.generator)
        while mask is not None and mask.ndim < noise.ndim:
            mask = mask.unsqueeze(-2)
        return (noise if mask is None else noise.masked_fill(~mask, -1)).argmax(-1)
