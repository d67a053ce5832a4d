"""Seeds of episodes."""

from __future__ import annotations

from diffpolicy._seeds import derived


def episode_seed(seed: int, *numbers: int) -> int:
    """A seed for an episode, pass or split of a run: a hash, so that neighbouring numbers have unrelated streams.

    Args:
        seed: of the run. numbers: which episode or pass, each at least 0.
    """
    return derived(seed, *numbers, bits=31)
