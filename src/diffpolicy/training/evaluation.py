"""The evaluation protocol: any policies in any environment, on identical episodes, with intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torchrl.envs import EnvBase

from diffpolicy.errors import InputError
from diffpolicy.policies.recurrent import with_recurrent_state

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Played:
    """What a policy's episodes cost, item by item.

    Args:
        cost: of each item, `[K]`, in order of step, environment and item.
        episode: of each item, `[K]`.
        seconds: spent in the policy.
        notes: further values of each item by their keys, `[K]`.
    """

    cost: Floats
    episode: npt.NDArray[np.int64]
    seconds: float
    notes: dict[str, Floats]

    def episode_means(self) -> Floats:
        """Mean cost of each episode, in the order of their numbers."""
        numbers, index = np.unique(self.episode, return_inverse=True)
        sums = np.bincount(index, self.cost, len(numbers)).astype(np.float64)
        return sums / np.bincount(index, minlength=len(numbers))

    @staticmethod
    def join(parts: Sequence[Played]) -> Played:
        """The episodes of several runs as one."""
        return Played(
            np.concatenate([p.cost for p in parts]),
            np.concatenate([p.episode for p in parts]),
            sum(p.seconds for p in parts),
            {k: np.concatenate([p.notes[k] for p in parts]) for k in parts[0].notes},
        )


@contextmanager
def undisturbed(policy: Any) -> Iterator[None]:
    """Lets a policy act in `eval` mode, and leaves its mode and its generator as they were."""
    training = getattr(policy, "training", False)
    generator = getattr(policy, "generator", None)
    state = generator.get_state() if generator is not None else None
    if hasattr(policy, "eval"):
        policy.eval()
    try:
        yield
    finally:
        if hasattr(policy, "train"):
            policy.train(training)
        if generator is not None:
            generator.set_state(state)


def play(
    env: EnvBase,
    policy: Any,
    steps: int,
    *,
    reward_key: NestedKey = ("agents", "reward"),
    valid_key: NestedKey | None = ("agents", "valid"),
    note_keys: Sequence[NestedKey] = (),
    first_episode: int = 0,
    watch: Callable[[TensorDictBase], None] | None = None,
) -> Played:
    """Plays one episode in each environment of a batch; cost is minus reward.

    Args:
        env: batch `[E]`; environment e plays episode `first_episode + e`.
        policy: a tensordict module, in the mode in which it is; see `undisturbed`.
        steps: T.
        reward_key, valid_key: of one shape; without a valid key all entries count.
        note_keys: of the same shape, collected beside the cost.
        watch: sees each step.
    """
    costs, episodes, notes, seconds = [], [], {str(k): [] for k in note_keys}, 0.0  # type: ignore[var-annotated]
    with torch.no_grad():
        env = with_recurrent_state(env, policy)
        root = env.reset()
        number = torch.arange(first_episode, first_episode + env.batch_size[0])
        for t in range(steps):
            start = time.perf_counter()
            root = policy(root)
            seconds += time.perf_counter() - start
            step = env.step(root)
            if watch is not None:
                watch(step)
            reward = step.get(("next", *reward_key) if isinstance(reward_key, tuple) else ("next", reward_key)).cpu()
            valid = torch.ones_like(reward, dtype=torch.bool) if valid_key is None else step[valid_key].cpu()
            costs.append(-reward[valid].double())
            episodes.append(number.view(-1, *[1] * (valid.ndim - 1)).expand_as(valid)[valid])
            for key in note_keys:
                notes[str(key)].append(step[key].cpu()[valid].double())
            if t + 1 < steps:
                root = env.step_mdp(step)
    if not any(len(cost) for cost in costs):
        raise InputError("no task arrived, so there is nothing to evaluate")
    return Played(
        torch.cat(costs).numpy(),
        torch.cat(episodes).numpy(),
        seconds,
        {k: torch.cat(v).numpy() for k, v in notes.items()},
    )


@dataclass(frozen=True)
class Interval:
    """A mean and the half-width of its 95 % interval, None where one value does not tell."""

    mean: float
    half_width: float | None


def mean_interval(values: Floats) -> Interval:
    """Student's interval of independent values."""
    n = len(values)
    if n < 2:
        return Interval(float(values.mean()), None)
    return Interval(float(values.mean()), student_t(n - 1) * float(values.std(ddof=1)) / math.sqrt(n))


def ratio_interval(numerator: Played, denominator: Played) -> tuple[float, tuple[float, float] | None]:
    """Ratio of the pooled means with its 95 % interval, paired over episodes (linearised)."""
    if not denominator.cost.mean() > 0:
        raise InputError("the baseline's mean delay is 0, so no ratio to it can be given")
    ratio = float(numerator.cost.mean() / denominator.cost.mean())
    a, b = numerator.episode_means(), denominator.episode_means()
    if len(a) < 2:
        return ratio, None
    residual = (a - ratio * b) / b.mean()
    half = student_t(len(a) - 1) * float(residual.std(ddof=1)) / math.sqrt(len(a))
    return ratio, (ratio - half, ratio + half)


def student_t(df: int) -> float:
    """The 97.5 % quantile of Student's t: a table for few degrees of freedom, Cornish and Fisher's expansion beyond."""
    table = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
    if df <= len(table):
        return table[df - 1]
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / (4 * df)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * df**3)
    return z + first + second + third
