"""Playing episodes: what a policy's decisions cost, item by item."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs import EnvBase

from diffpolicy._global_draws import global_draws
from diffpolicy._types import Floats, Ints
from diffpolicy.environments.chosen import check_chosen, check_is_env, choices_of
from diffpolicy.environments.ends import ENDLESS, ended, refuse_endless
from diffpolicy.environments.lane_checks import check_ends_apart
from diffpolicy.environments.watch import begun
from diffpolicy.errors import InputError
from diffpolicy.policies.protocols import Decides, OwnsGenerator
from diffpolicy.policies.recurrent import with_recurrent_state

Per = Literal["episode", "step", "item"]
"""What a cost is of."""


@dataclass(frozen=True)
class Played:
    """What a policy's episodes cost, item by item.

    Args:
        cost: of each item, float64 `[K]`, in the problem's unit, in order of step, environment and item.
        episode: number of each item's episode, `[K]`.
        seconds: spent in the policy; the first decision, in which it may be compiled, counts as the mean of the others.
        notes: further values of each item by their keys, `[K]`.
        decisions: how many items were decided, where it is not each of these.

    Example:
        >>> import numpy as np
        >>> played = Played(np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1]), seconds=0.5, notes={})
        >>> played.episode_means().tolist(), played.added_up("episode").cost.tolist(), played.decisions_per_second
        ([1.5, 6.0], [3.0, 6.0], 6.0)
    """

    cost: Floats
    episode: Ints
    seconds: float
    notes: dict[str, Floats]
    decisions: int | None = None

    @property
    def decisions_per_second(self) -> float:
        """Items that the policy decided in a second of its own."""
        return (len(self.cost) if self.decisions is None else self.decisions) / max(self.seconds, 1e-9)

    def episode_means(self) -> Floats:
        """Mean cost of each episode, in the order of their numbers."""
        sums, counts = self.episode_sums(np.unique(self.episode))
        return sums / counts

    def episode_sums(self, numbers: Ints) -> tuple[Floats, Floats]:
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
        """The episodes of several runs as one.

        Args:
            parts: at least one, all with the same notes.

        Raises:
            InputError: there are none.
        """
        if not parts:
            raise InputError("parts must hold at least one run, got none")
        return Played(
            np.concatenate([p.cost for p in parts]),
            np.concatenate([p.episode for p in parts]),
            sum(p.seconds for p in parts),
            {k: np.concatenate([p.notes[k] for p in parts]) for k in parts[0].notes},
            None if any(p.decisions is None for p in parts) else sum(p.decisions or 0 for p in parts),
        )

    def added_up(self, per: Per) -> Played:
        """One cost an episode, or what it is for items. Args: per: `episode` or `item`."""
        if per != "episode":
            return self
        numbers = np.unique(self.episode)
        decided = len(self.cost) if self.decisions is None else self.decisions
        return Played(self.episode_sums(numbers)[0], numbers, self.seconds, {}, decided)


@contextmanager
def undisturbed(policy: Decides, seed: int | None = None) -> Iterator[None]:
    """Lets a policy act in `eval` mode, and leaves the modes and generators of all its parts as they were.

    The process's global generators, of torch, NumPy and `random`, are left as they were too.

    Args:
        policy: any.
        seed: from which a policy draws that draws from global generators; None: they are where they are.

    Yields:
        Nothing.

    Example:
        >>> env = Clinic(4)
        >>> policy = RandomRule(env, seed=1)
        >>> with undisturbed(policy):
        ...     first = policy(env.reset())["action"]
        >>> torch.equal(first, policy(env.reset())["action"])  # as if it had never acted
        True
    """
    parts = list(policy.modules()) if isinstance(policy, nn.Module) else [policy]
    modes = [(part, part.training) for part in parts if isinstance(part, nn.Module)]
    generators = [part.generator for part in parts if isinstance(part, OwnsGenerator)]
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
    policy: Decides,
    steps: int | None = None,
    *,
    reward_key: NestedKey | None = None,
    valid_key: NestedKey | None = "auto",
    note_keys: Sequence[NestedKey] = (),
    per: Per = "item",
    first_episode: int = 0,
    watch: Callable[[TensorDictBase], None] | None = None,
    forbid: bool = False,
) -> Played:
    """Plays one episode in each lane of an environment; cost is minus reward.

    An episode is over after `steps` steps, or once the environment says so at its root (`done`, `terminated` or
    `truncated`). A lane that ends before the others is reset and goes on, and nothing of that is counted.

    Args:
        env: lanes are what its batch size counts, one without a batch; lane e plays episode `first_episode + e`.
        policy: a tensordict module, in the mode in which it is; see `undisturbed`.
        steps: T, at most; None: until each lane has ended, within `ENDLESS` steps.
        reward_key: by default the environment's only one, or the one at its root.
        valid_key: of the reward's shape; by default `valid` beside the reward, where there is one of that shape;
            None: all entries count.
        note_keys: of the same shape, collected beside the cost of items.
        per: what a cost is of: an `item`, all items of a lane's `step`, or all of an `episode`, as `Cost` says.
        first_episode: number of lane 0's episode.
        watch: sees each step that is played.
        forbid: whether a choice that the mask beside it forbids is refused; else the environment says what it does.

    Returns:
        The cost of each item, step or episode, with its episode's number.

    Raises:
        InputError: a key is not there or has another shape, an action is out of range or forbidden, nothing was
            played that costs anything, a cost is not finite, or the environment begins all lanes anew where some have
            ended.

    Example:
        >>> env = Clinic(4)
        >>> played = play(env, RandomRule(env), per="episode", first_episode=8)
        >>> played.cost.shape, played.episode.tolist()
        ((4,), [8, 9, 10, 11])
    """
    check_is_env(env)
    base = env
    costs, episodes, notes, seconds = [], [], {str(k): [] for k in note_keys}, []  # type: ignore[var-annotated]
    lanes, decided = env.batch_size.numel(), 0
    number = torch.arange(first_episode, first_episode + lanes).unsqueeze(-1)
    rewarded = _reward_key(env) if reward_key is None else reward_key
    existing = _valid_key(env, rewarded) if valid_key == "auto" else valid_key
    with torch.no_grad(), begun(env):
        env = with_recurrent_state(env, policy)
        choices = choices_of(env, masks=forbid)
        root = env.reset()
        going = ~ended(root, lanes)
        for t in range(ENDLESS if steps is None else steps):
            if not going.any():
                break
            start = time.perf_counter()
            shown, root = root, policy(root)
            seconds.append(time.perf_counter() - start)
            check_chosen(root, choices, env.batch_size, "the policy", going, shown)
            # the last step resets nothing, which would be for nobody
            step, root = env.step_and_maybe_reset(root) if t + 1 != steps else (env.step(root), root)
            if watch is not None:
                watch(step)
            reward = _entries(step, ("next", *_path(rewarded)), lanes)
            counted = going.unsqueeze(-1).expand_as(reward)
            if existing is not None:
                counted = counted & _entries(step, existing, lanes, reward)
            decided += int(counted.sum())
            if per == "item":
                costs.append(-reward[counted].double())
                episodes.append(number.expand_as(reward)[counted])
            else:
                costs.append(-(reward.double() * counted).sum(-1)[going])
                episodes.append(number.squeeze(-1)[going])
            for key in note_keys:
                notes[str(key)].append(_entries(step, key, lanes, reward)[counted].double())
            over = ended(step.get("next"), lanes)
            if going.all() and over.any() and not over.all():
                check_ends_apart(env)
            going &= ~over
        else:
            if steps is None and going.any():
                refuse_endless(base, going, ENDLESS)
    if not any(len(cost) for cost in costs):
        raise InputError("nothing was decided in any episode, so there is nothing to evaluate")
    bad = torch.cat(costs)
    bad = bad[~torch.isfinite(bad)]
    if len(bad):
        why = "no numbers" if bad.isnan().all() else "too large to be numbers"
        raise InputError(f"{len(bad)} costs are {why}, the first {bad[0].item()}")
    return Played(
        torch.cat(costs).numpy(),
        torch.cat(episodes).numpy(),
        _apart_from_the_first(seconds),
        {k: torch.cat(v).numpy() for k, v in notes.items()},
        None if per == "item" else decided,
    ).added_up(per)


def _reward_key(env: EnvBase) -> NestedKey:
    keys = [key if isinstance(key, str) or len(key) > 1 else key[0] for key in env.reward_keys]
    if len(keys) > 1 and "reward" not in keys:
        raise InputError(f"which of the rewards {keys} is the cost? give only one, or one at the root")
    return keys[0] if len(keys) == 1 else "reward"


def _valid_key(env: EnvBase, reward: NestedKey) -> NestedKey | None:
    """`valid` beside a reward, if it has its shape."""
    path = _path(reward)
    key = (*path[:-1], "valid") if len(path) > 1 else "valid"
    if key not in env.observation_spec.keys(True, True):
        return None
    same = env.observation_spec[key].shape.numel() == env.full_reward_spec[reward].shape.numel()
    return key if same else None


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


def _apart_from_the_first(seconds: Sequence[float]) -> float:
    """What decisions took in all, the first of them as the mean of the others: policies may be compiled in it."""
    return sum(seconds) if len(seconds) < 2 else sum(seconds[1:]) * len(seconds) / (len(seconds) - 1)
