"""Seeds of the parts of a run."""

from __future__ import annotations

import numpy as np


def derived(seed: int, *numbers: int, bits: int = 32) -> int:
    """A seed for a part of a run: a hash, so that neighbouring numbers have unrelated streams.

    Args:
        seed: of the run, at least 0. numbers: which part, as which episode or pass, each at least 0. bits: of the
            seed, at most 64.
    """
    # as a spawn key: trailing zeros of an entropy do not count, so that part 0 would have the run's own seed
    words = np.random.SeedSequence(seed, spawn_key=numbers).generate_state(1, np.uint64 if bits > 32 else np.uint32)
    return int(words[0]) % int(2**bits)
