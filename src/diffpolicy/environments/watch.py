"""`Watch`: what is seen of an environment while it is played, where nobody can make another one to try it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from diffpolicy.environments.checks import REUSED, TOUCHED, check_untouched
from diffpolicy.environments.lane_checks import check_ends_apart
from diffpolicy.environments.lanes import called
from diffpolicy.errors import InputError

LOOKS = 3
"""Steps whose storage is looked at."""
ENDS, LANES = 3, 4
"""After so many common ends of at least so many lanes it is said that they always end together."""


@contextmanager
def begun(env: EnvBase) -> Iterator[None]:
    """Says in a sentence that an environment began an episode that is over; TorchRL refuses it by an error of its own.

    Args:
        env: that is reset or stepped within.

    Raises:
        InputError: names the environment.
    """
    try:
        yield
    except RuntimeError as error:
        if "after a call to reset" not in str(error):
            raise
        raise InputError(
            f"_reset of {called(env)} began an episode that is over already; it must begin where there is "
            "something to decide, and all of done, terminated and truncated are false"
        ) from None


class Watch:
    """Refuses what would make wrong data of steps while they are played: storage used again, lanes begun unasked.

    Args:
        env: that is played.
    """

    def __init__(self, env: EnvBase) -> None:
        self.env, self.name = env, called(env)
        self._given: list[tuple[TensorDictBase, TensorDictBase]] = []
        self._acting: TensorDictBase | None = None
        self._apart, self._steps = False, 0
        self._lengths: list[int] = []

    def before(self, acting: TensorDictBase) -> None:
        """Keeps the actions that the environment is about to be given. Args: acting: holds them."""
        looks = len(self._given) < LOOKS
        self._acting = acting.select(*self.env.action_keys, strict=False).clone() if looks else None

    def see(self, step: TensorDictBase, over: Tensor) -> None:
        """Looks at a step.

        Args:
            step: what the environment was given, and what it gave. over: lanes that have ended, bool `[E]`.

        Raises:
            InputError: names the environment, and the key or what `_reset` is to do.
        """
        if self._acting is not None:
            check_untouched(step, self._acting, f"a step of {self.name} {TOUCHED}")
            for now, before in self._given:
                check_untouched(now, before, f"what {self.name} gave as {{key!r}} {REUSED}")
            self._given.append((step["next"], step["next"].clone()))
        self._steps += 1
        if not self._apart and over.any():
            self._see_end(over)

    def begin(self) -> None:
        """All lanes begin anew."""
        self._steps = 0

    def _see_end(self, over: Tensor) -> None:
        """Lanes that end apart must begin apart; those that never do, though at any time, are told of."""
        if not over.all():
            self._apart = True
            check_ends_apart(self.env)
            return
        self._lengths.append(self._steps)
        self._steps = 0
        if len(over) >= LANES and len(self._lengths) == ENDS and len(set(self._lengths)) > 1:
            self._apart = True
            warnings.warn(
                f"the {len(over)} lanes of {self.name} have always ended together, after {self._lengths} steps: does "
                "the end of one end all?",
                stacklevel=4,
            )
