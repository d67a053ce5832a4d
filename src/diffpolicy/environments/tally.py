"""`Tally`: what the rollouts of a pass cost."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy.environments.cost import Cost
from diffpolicy.environments.transitions import COUNTED


class Tally:
    """Adds up minus the rewards of what counts, and by what they are counted; the mean is a column of the history.

    Training makes one of a problem (`Problem.tally`), gives it every rollout, and takes the sums at the end of a pass.

    Args:
        cost: what a mean is taken over, and the column of the history under which it stands.
        reward: its key.
        valid: the key of which items exist; None, or where they share a reward: all rewards count.

    Example:
        >>> from tensordict import TensorDict
        >>> rollout = TensorDict({"next": {"reward": torch.full((2, 3, 1), -0.5)}}, [2, 3])
        >>> tally = Tally(Cost("waiting", per="step"))
        >>> tally.add(rollout)
        >>> tally.take(episodes=2)
        (3.0, 6.0)
    """

    def __init__(self, cost: Cost, reward: NestedKey = "reward", valid: NestedKey | None = None) -> None:
        self.cost, self.reward, self.valid = cost, reward, valid
        self.begin()

    def begin(self) -> None:
        """Nothing is played yet."""
        self.total: Tensor | float = 0.0
        self.steps = self.items = 0

    def add(self, rollout: TensorDictBase) -> None:
        """Counts a rollout. Args: rollout: batch `[E, T]`, with `counted` where not all of it counts."""
        reward, counted = rollout["next"][self.reward], rollout.get(COUNTED, None)
        here = torch.ones_like(reward, dtype=torch.bool)
        if self.valid is not None and rollout[self.valid].numel() == reward.numel():
            # what is rewarded of an item that does not exist means nothing; a reward that all share has no such part
            here = rollout[self.valid].view_as(reward)
        if counted is not None:
            here = here & _like(counted, reward)
        self.total = self.total - torch.where(here, reward, 0).sum().double()
        self.steps += rollout.numel() if counted is None else int(counted.sum())
        self.count(rollout, here)

    def count(self, rollout: TensorDictBase, here: Tensor) -> None:
        """Counts the items of a rollout. Args: here: which of them count, bool of the reward's shape."""
        self.items += int(here.sum())

    def take(self, episodes: int) -> tuple[float, float]:
        """The whole cost, and what a mean divides it by; it begins again. Args: episodes: that were played."""
        counts = {"episode": episodes, "step": self.steps, "item": self.items}
        taken = float(self.total), float(counts[self.cost.per])
        self.begin()
        return taken


def _like(flags: Tensor, values: Tensor) -> Tensor:
    """Flags of a rollout's batch for each of its values. Args: flags: `[E, T]`. values: `[E, T, *]`."""
    return flags.view(*flags.shape, *[1] * (values.ndim - flags.ndim)).expand_as(values)
