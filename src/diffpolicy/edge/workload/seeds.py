"""Streams of a seed: what is drawn for different purposes shares no numbers, although a user gives one seed for all."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Disjoint families of episodes: what a policy is trained on is never what it is judged on.

    Example:
        >>> scenario = Scenario.load("lad-ts")
        >>> first = [OffloadingEnv(scenario, stream=stream).reset()["agents", "observation"] for stream in Stream]
        >>> torch.equal(*first)
        False
    """

    EVALUATION = 0
    TRAINING = 1


class Purpose(IntEnum):
    """What is drawn. The numbers below 16 are those of `mix.generators`."""

    HORIZON = 16
    THINNING = 17
    TYPES = 18
    STATIONS = 19
    TIMES = 20


def drawer(purpose: Purpose, seed: int, *numbers: int) -> np.random.Generator:
    """The generator of a purpose; a spawn key keeps it apart from the arrivals, whose numbers may end in zeros.

    Args:
        purpose: what it draws. seed: at least 0. numbers: which episode, for instance, each at least 0.
    """
    root = np.random.SeedSequence((seed, *numbers), spawn_key=(int(purpose),))
    return np.random.Generator(np.random.PCG64(root))
