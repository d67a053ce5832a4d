"""Seeds of the parts of a run."""

from __future__ import annotations

import numpy as np


def episode_seed(seed: int, *numbers: int) -> int:
    """A seed for an episode, pass or split of a run: a hash, so that neighbouring numbers have unrelated streams.

    Args:
        seed: of the run. numbers: which episode or pass, each at least 0.
    """
    # as a spawn key: trailing zeros of an entropy do not count, so that episode 0 would have the run's own seed
    return int(np.random.SeedSequence(seed, spawn_key=numbers).generate_state(1)[0]) % 2**31
