"""The process's global generators, of torch, NumPy and `random`: other people's code may draw from them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

State = dict[str, Any]
_TAG = 0x61CB
"""Keeps these streams apart from what else is drawn for a seed."""


def global_state() -> State:
    """Where the generators are, in tensors, numbers and texts, so that checkpoints can hold it."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (the global one)
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [name, torch.from_numpy(np.array(keys, dtype=np.int64)), *rest],
        "random": [version, torch.tensor(words), gauss],
    }


def set_global_state(state: State) -> None:
    """Puts the generators where `global_state` found them."""
    torch.set_rng_state(state["torch"].cpu().to(torch.uint8))
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([x.cpu().to(torch.uint8) for x in state["cuda"]])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002 (the global one)
    version, words, gauss = state["random"]
    random.setstate((version, tuple(words.tolist()), None if gauss is None else float(gauss)))


def seed_globals(seed: int, *numbers: int) -> None:
    """Seeds the generators. Args: seed: at least 0. numbers: of a process, for instance, each at least 0."""
    words = np.random.SeedSequence(seed, spawn_key=(_TAG, *numbers)).generate_state(3)
    # of the devices only those in use: `torch.manual_seed` would leave a seed for the others, to be met later
    torch.default_generator.manual_seed(int(words[0]))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002 (the global one)
    random.seed(int(words[2]))


@contextmanager
def global_draws(seed: int | None = None) -> Iterator[None]:
    """Leaves the global generators as they were, whatever is drawn from them within.

    Args:
        seed: where they begin, at least 0; None: where they are.
    """
    before = global_state()
    if seed is not None:
        seed_globals(seed)
    try:
        yield
    finally:
        set_global_state(before)
