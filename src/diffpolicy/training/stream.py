"""`RolloutStream`: rollouts of a policy in an environment, one after the other, as a data set for Lightning."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.utils.data import IterableDataset
from torchrl.envs import EnvBase, TransformedEnv

from diffpolicy import _validate as check
from diffpolicy._seeds import derived
from diffpolicy.environments.ends import ENDLESS, ended, refuse_endless
from diffpolicy.environments.state import saves_state
from diffpolicy.environments.transitions import COUNTED
from diffpolicy.environments.watch import Watch, begun
from diffpolicy.errors import InputError
from diffpolicy.policies.memory import MemoryState
from diffpolicy.policies.nested_keys import beside
from diffpolicy.policies.protocols import Decides, Shardable, bare, seed_of
from diffpolicy.policies.recurrent import RecurrentState, check_batch, with_recurrent_state


class RolloutStream(IterableDataset[TensorDict]):
    """Each item is a rollout of `steps` steps, batch `[E, steps]`; one pass is one episode of each lane.

    A lane's episode is over after `episode_steps` steps, if that is given, or once the environment says so. A lane that
    ends before the others is reset and goes on, but what it does then is not of this pass: it is false in the key
    `counted` `[E, steps]`, which an item has where not all of it counts (see `counted_parts`). The pass ends when all
    lanes have, and every lane begins the next one with a reset. Nothing is computed ahead: an item is played when it
    is asked for, with the parameters of that moment.

    An environment that cannot save its state (no `get_extra_state` and `set_extra_state`) begins every pass, resumed or
    not, with `set_seed(pass_seed(seed, number of the pass))` and a reset, so that a resumed run plays the same.

    Args:
        env: batched `[E]`; its recurrent keys for the policy are added.
        policy: a tensordict module.
        episode_steps: T, at most; None: as many as it takes, and `ENDLESS` are too many.
        steps: of one item; T must be a multiple of it.
        seed: of an environment without a saved state; None: the policy's, or 0.

    Raises:
        InputError: `steps` does not divide T, or the environment has another batch; while playing: an episode without
            `episode_steps` does not end or is over when it begins, the environment changes what it gave before, or it
            begins all lanes anew where some have ended.

    Example:
        >>> env = Clinic(4)
        >>> stream = RolloutStream(env, RandomRule(env), episode_steps=50, steps=25)
        >>> [list(rollout.batch_size) for rollout in stream]
        [[4, 25], [4, 25]]
    """

    def __init__(
        self, env: EnvBase, policy: Decides, *, episode_steps: int | None, steps: int = 1, seed: int | None = None
    ) -> None:
        steps = check.integer(steps, "steps")
        if episode_steps is not None:
            episode_steps = check.integer(episode_steps, "episode_steps", least=1)
        if steps < 1 or (episode_steps is not None and episode_steps % steps):
            raise InputError(f"steps must divide the {episode_steps or ENDLESS} steps of an episode, got {steps}")
        check_batch(env, "training")
        self.base_env = env
        self.env = with_recurrent_state(env, policy)
        self.policy: Any = policy  # it has `remembered` where the environment carries its memory
        self.episode_steps, self.steps = episode_steps, steps
        self.saves, self.passes = saves_state(env), 0
        self.watch = Watch(env)
        self.seed = seed_of(policy) if seed is None else seed
        self.root: TensorDictBase | None = None
        self.played = 0
        """Items of the present pass; 0 when it is over."""
        self.going = torch.ones(env.batch_size.numel(), dtype=torch.bool)
        """Which lanes have not yet ended in the present pass."""
        self.whole = False
        """Whether a pass plays all its items, also those that nothing counts: processes side by side go in step."""
        self.seconds = 0.0

    def __len__(self) -> int:
        return (ENDLESS if self.episode_steps is None else self.episode_steps) // self.steps

    def __iter__(self) -> Iterator[TensorDict]:
        yield self.rollout()
        while self.played:
            yield self.rollout()

    def rollout(self) -> TensorDict:
        """The next `steps` steps, `[E, steps]`."""
        with torch.no_grad(), begun(self.base_env):
            return self._rollout()

    def _rollout(self) -> TensorDict:
        start = time.perf_counter()
        if not self.saves and self.played == 0:
            self.base_env.set_seed(pass_seed(self.seed, self.passes))
            self.root = self.env.reset(self._carried())
            self.passes += 1
        elif self.root is None:
            self.root = self.env.reset()
        played, counted = [], []
        for _ in range(self.steps):
            acting = self.policy(self.root)
            self.watch.before(acting)
            step, self.root = self.env.step_and_maybe_reset(acting)
            played.append(step)
            counted.append(self.going)
            over = ended(step.get("next"), len(self.going))
            self.watch.see(step, over)
            self.going = self.going & ~over
        self.played += 1
        if self.played == len(self) and self.episode_steps is None and self.going.any():
            refuse_endless(self.base_env, self.going, self.played * self.steps)
        if self.played == len(self) or not (self.whole or self.going.any()):
            self._begin_again(~over)
        result: Any = torch.stack(played, 1) if len(played) > 1 else played[0].unsqueeze(1)
        if not all(lanes.all() for lanes in counted):
            flags = torch.stack(counted, 1).view(*self.base_env.batch_size, -1)
            result.set(COUNTED, flags.to(result.device))
        self.seconds += time.perf_counter() - start
        return result

    def _begin_again(self, unfinished: Tensor) -> None:
        """Ends the pass: resets the lanes that are in the middle of an episode, bool `[E]`."""
        self.played, self.going = 0, torch.ones_like(self.going)
        self.watch.begin()
        if self.saves and unfinished.any():
            assert self.root is not None
            for key in self.env.reset_keys:
                like = self.root.get(beside(key, "done"))
                chosen = unfinished.view(*self.base_env.batch_size, *[1] * (like.ndim - self.base_env.batch_dims))
                self.root.set(key, chosen.to(like.device).expand_as(like))
            self.root = self.env.reset(self.root, select_reset_only=True)

    def _carried(self) -> TensorDictBase | None:
        """What the policy carries from pass to pass, for the reset that begins one."""
        primers = self.env.transform if isinstance(self.env, TransformedEnv) else None
        if self.root is None or not isinstance(primers, RecurrentState):
            return None
        return self.root.select(*primers.primers.keys(True, True))

    def shard(self, rank: int, world: int) -> None:
        """Takes every `world`-th episode, from `rank` on, so that processes side by side never play the same.

        Raises:
            InputError: the environment has no `shard(rank, world)`.
        """
        base = bare(self.base_env)
        if not issubclass(type(base), Shardable):
            raise InputError(
                f"{type(self.base_env).__name__} has no 'shard', so it cannot be trained in {world} processes"
            )
        base.shard(rank, world)
        self.whole = world > 1

    @property
    def memory(self) -> MemoryState | None:
        """The policy's action memory in the environment, if it has one."""
        transform = self.env.transform if isinstance(self.env, TransformedEnv) else None
        return transform if isinstance(transform, MemoryState) else None

    def remember(self) -> None:
        """Copies what environment 0 remembers into the policy, so that it is saved and evaluated with it."""
        if self.memory is not None and self.root is not None:
            self.policy.remembered = self.memory.of_environment(self.root)

    def state_dict(self) -> dict[str, Any]:
        """Environment, memory and the present root: with them the stream goes on as if nothing had happened."""
        if not self.saves and self.played:
            raise InputError(
                f"{type(self.base_env).__name__} cannot save its state, so it can only be saved between two passes"
            )
        return {
            "env": self.base_env.get_extra_state() if self.saves else None,
            "passes": self.passes,
            "memory": None if self.memory is None else self.memory.get_extra_state(),
            "root": None if self.root is None else self.root.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.passes = state["passes"]
        if self.saves:
            self.base_env.set_extra_state(state["env"])
        if self.memory is not None:
            self.memory.set_extra_state(state["memory"])
        if state["root"] is not None:
            self.root = self.env.reset()
            saved = TensorDict.from_dict(state["root"], batch_size=self.root.batch_size[:0])
            for key, value in saved.items(True, True):
                self.root.set(key, value)
            if self.saves:
                self.base_env.set_extra_state(state["env"])
            if self.memory is not None:
                self.memory.set_extra_state(state["memory"])


def pass_seed(seed: int, number: int) -> int:
    """The seed of a training pass of an environment that cannot save its state. Args: number: of the pass, from 0."""
    training = 1
    return derived(abs(seed), training, number)


def counted_parts(rollout: TensorDictBase) -> list[TensorDictBase]:
    """What counts of a stream's item: the lanes up to where their episodes ended.

    Args:
        rollout: `[E, T]`, with `counted` `[E, T]` where not all of it counts.

    Returns:
        Rollouts `[E', T']` of lanes that end together, the shortest first; the item itself if all of it counts.
    """
    counted = rollout.get(COUNTED, None)
    if counted is None:
        return [rollout]
    rollout, lengths = rollout.exclude(COUNTED), counted.sum(-1)
    return [rollout[lengths == t][:, :t] for t in lengths.unique().tolist() if t]


def whole(items: list[TensorDictBase]) -> TensorDictBase:
    """A pass out of a stream's items, `[E, T]`, with `counted` where not all of it counts. Args: items: in order."""
    if any(COUNTED in item.keys() for item in items):
        everything = torch.ones(items[0].batch_size[:1], dtype=torch.bool)
        items = [
            item
            if COUNTED in item.keys()
            else item.copy().set(COUNTED, everything.to(item.device).unsqueeze(-1).expand(item.batch_size))
            for item in items
        ]
    result: TensorDictBase = torch.cat(items, 1) if len(items) > 1 else items[0]
    return result
