"""Prompts and seeds of a profile's calls: no two alike, so that no server answers from its memory."""

from __future__ import annotations

import random

PROMPT = "a lighthouse, oil on canvas"
"""Text encoders pad every prompt to one length, so its words do not matter."""
ADJECTIVES = ("calm", "dark", "golden", "lonely", "misty", "old", "stormy", "white")
NOUNS = ("bay", "cliff", "coast", "harbour", "island", "night", "reef", "winter")
SEEDS = 2**31
"""Every server takes seeds below it."""


def variation(prompt: str, seed: int, call: int) -> tuple[str, int]:
    """The prompt and the seed of a profile's k-th call: always the same ones, and no two calls of a profile alike.

    Args:
        prompt: what the call's prompt begins with. seed: of the profile. call: its number, from 0.

    Example:
        >>> variation("a cat", seed=0, call=3)[0].startswith("a cat, ")
        True
    """
    words = random.Random(f"{seed} {call}")
    first = random.Random(seed).randrange(SEEDS)
    return f"{prompt}, {words.choice(ADJECTIVES)} {words.choice(NOUNS)} {call + 1}", (first + call) % SEEDS
