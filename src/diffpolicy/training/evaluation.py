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
from torch import Tensor, nn
from torchrl.envs import EnvBase

from diffpolicy._global_draws import global_draws
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
        sums, counts = self.episode_sums(np.unique(self.episode))
        return sums / counts

    def episode_sums(self, numbers: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Cost and number of items of each episode.

        Args:
            numbers: of the episodes, ascending, `[N]`; one that has no items costs 0.

        Returns:
            Sums `[N]` and counts `[N]`.
        """
        index = np.searchsorted(numbers, self.episode)
        sums = np.bincount(index, self.cost, len(numbers)).astype(np.float64)
        return sums, np.bincount(index, minlength=len(numbers)).astype(np.float64)

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
def undisturbed(policy: Any, seed: int | None = None) -> Iterator[None]:
    """Lets a policy act in `eval` mode, and leaves the modes and generators of all its parts as they were.

    The process's global generators, of torch, NumPy and `random`, are left as they were too.

    Args:
        policy: any. seed: from which a policy draws that draws from global generators; None: they are where they are.
    """
    parts = list(policy.modules()) if isinstance(policy, nn.Module) else [policy]
    modes = [(part, part.training) for part in parts if isinstance(part, nn.Module)]
    generators = [getattr(part, "generator", None) for part in parts]
    states = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    for part, _ in modes[:1]:
        part.eval()
    try:
        with global_draws(seed):
            yield
    finally:
        for part, training in modes:
            part.training = training
        for generator, state in states:
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
    """Plays one episode in each lane of an environment; cost is minus reward.

    An episode is over after `steps` steps, or once the environment says so at its root (`done`, `terminated` or
    `truncated`). A lane that ends before the others is reset and goes on, and nothing of that is counted.

    Args:
        env: lanes are what its batch size counts, one without a batch; lane e plays episode `first_episode + e`.
        policy: a tensordict module, in the mode in which it is; see `undisturbed`.
        steps: T, at most.
        reward_key, valid_key: of one shape; without a valid key all entries count.
        note_keys: of the same shape, collected beside the cost.
        watch: sees each step that is played.

    Raises:
        InputError: a key is not there or has another shape, or nothing was played that costs anything.
    """
    costs, episodes, notes, seconds = [], [], {str(k): [] for k in note_keys}, 0.0  # type: ignore[var-annotated]
    lanes = env.batch_size.numel()
    number = torch.arange(first_episode, first_episode + lanes).unsqueeze(-1)
    with torch.no_grad():
        env = with_recurrent_state(env, policy)
        root = env.reset()
        going = ~ended(root, lanes)
        for t in range(steps):
            if not going.any():
                break
            start = time.perf_counter()
            root = policy(root)
            seconds += time.perf_counter() - start
            # the last step resets nothing, which would be for nobody
            step, root = env.step_and_maybe_reset(root) if t + 1 < steps else (env.step(root), root)
            if watch is not None:
                watch(step)
            reward = _entries(step, ("next", *_path(reward_key)), lanes)
            counted = going.unsqueeze(-1).expand_as(reward)
            if valid_key is not None:
                counted = counted & _entries(step, valid_key, lanes, reward)
            costs.append(-reward[counted].double())
            episodes.append(number.expand_as(reward)[counted])
            for key in note_keys:
                notes[str(key)].append(_entries(step, key, lanes, reward)[counted].double())
            going &= ~ended(step.get("next"), lanes)
    if not any(len(cost) for cost in costs):
        raise InputError("no task arrived, so there is nothing to evaluate")
    return Played(
        torch.cat(costs).numpy(),
        torch.cat(episodes).numpy(),
        seconds,
        {k: torch.cat(v).numpy() for k, v in notes.items()},
    )


def ended(state: TensorDictBase, lanes: int) -> Tensor:
    """Which lanes of an environment are at the end of an episode, bool `[lanes]`, on the CPU.

    Args:
        state: what a reset gave, or what stands under `next` after a step; flags that it does not have are false.
        lanes: E, what the environment's batch size counts.
    """
    over = torch.zeros(lanes, dtype=torch.bool)
    for name in ("done", "terminated", "truncated"):
        flag = state.get(name, None)
        if flag is not None:
            over |= flag.cpu().reshape(lanes, -1).any(-1)
    return over


def _path(key: NestedKey) -> tuple[str, ...]:
    return key if isinstance(key, tuple) else (key,)


def _entries(step: TensorDictBase, key: NestedKey, lanes: int, like: Tensor | None = None) -> Tensor:
    """What stands under a key of a step, a row a lane, `[E, N]`, on the CPU."""
    value = step.get(key, None)
    if value is None:
        raise InputError(f"the environment gives no {key!r}, only {', '.join(map(repr, step.keys(True, True)))}")
    rows: Tensor = value.cpu().reshape(lanes, -1)
    if like is not None and rows.shape != like.shape:
        raise InputError(f"{key!r} must have an entry for each reward, {like.shape[1]} a lane, got {rows.shape[1]}")
    return rows


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


def pooled_interval(played: Played) -> Interval:
    """The pooled mean of all items with the interval of that mean.

    A pooled mean is a ratio of two sums over episodes, cost and number of items, so its interval is a ratio
    estimator's, linearised (Cochran, Sampling Techniques, 3rd ed., chapter 6): with sums S_k, counts n_k, their
    means over K episodes S and n, and m = S / n,

        residual_k = (S_k - m n_k) / n,    half width = t_(K-1) sd(residual) / sqrt(K)

    Where all episodes have equally many items it is Student's interval of their means. Few episodes of very unequal
    sizes, of which one holds most of the items, are fewer than they seem, and then it is too narrow.
    """
    sums, counts = played.episode_sums(np.unique(played.episode))
    return Interval(float(played.cost.mean()), _half_width(_mean_residuals(sums, counts)))


def ratio_interval(numerator: Played, denominator: Played) -> tuple[float, tuple[float, float] | None]:
    """Ratio of the pooled means with its 95 % interval, paired over episodes.

    The ratio is one of four sums over episodes, R = (A / a) / (B / b), with costs A_k, B_k and numbers of items a_k,
    b_k, capitals without an index being means over the K episodes; linearised (Cochran, Sampling Techniques, 3rd ed.,
    chapter 6),

        residual_k = A_k b / (a B) - R (B_k / B + a_k / a - b_k / b),    half width = t_(K-1) sd(residual) / sqrt(K)

    With the same items on both sides this is the ratio estimator's (A_k - R B_k) / B. An episode that has items on one
    side only counts as one without cost and items on the other.

    Raises:
        InputError: an episode costs nothing, so that no ratio can be given; `difference_interval` can.
    """
    if not denominator.cost.mean() > 0:
        raise InputError("the baseline's mean cost is not above 0, so no ratio to it can be given")
    ratio = float(numerator.cost.mean() / denominator.cost.mean())
    (a, na), (b, nb) = _both(numerator, denominator)
    cost, count = a / b.mean() * (nb.mean() / na.mean()), na / na.mean() - nb / nb.mean()
    residuals = cost - ratio * (b / b.mean() + count)
    half = _half_width(residuals)
    return ratio, None if half is None else (ratio - half, ratio + half)


def difference_interval(played: Played, baseline: Played) -> Interval:
    """Difference of the pooled means with its 95 % interval, paired over episodes (see `pooled_interval`)."""
    (a, na), (b, nb) = _both(played, baseline)
    difference = float(played.cost.mean() - baseline.cost.mean())
    return Interval(difference, _half_width(_mean_residuals(a, na) - _mean_residuals(b, nb)))


def has_ratio(played: Played, baseline: Played) -> bool:
    """Whether every episode of both costs more than zero, so that a ratio of their costs says something."""
    return all((p.episode_means() > 0).all() for p in (played, baseline))


def _both(first: Played, second: Played) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Sums and counts of both over the episodes that either has."""
    numbers = np.union1d(first.episode, second.episode)
    return first.episode_sums(numbers), second.episode_sums(numbers)


def _mean_residuals(sums: Floats, counts: Floats) -> Floats:
    """What each episode adds to a pooled mean, linearised."""
    residuals: Floats = (sums - sums.sum() / counts.sum() * counts) / counts.mean()
    return residuals


def _half_width(residuals: Floats) -> float | None:
    """Half the 95 % interval of a mean of independent values; None of one."""
    return mean_interval(residuals).half_width


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
