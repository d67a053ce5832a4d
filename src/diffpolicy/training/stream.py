"""`RolloutStream`: rollouts of a policy in an environment, one after the other, as a data set for Lightning."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from torchrl.envs import EnvBase, TransformedEnv

from diffpolicy.errors import InputError
from diffpolicy.policies.memory import MemoryState
from diffpolicy.policies.recurrent import with_recurrent_state
from diffpolicy.training.evaluation import ended


class RolloutStream(IterableDataset[TensorDict]):
    """Each item is a rollout of `steps` steps, batch `[E, steps]`; one pass is one episode of each lane.

    A lane's episode is over after `episode_steps` steps, or once the environment says so at its root. A lane that
    ends before the others is reset and goes on, but what it does then is not of this pass: it is false in the key
    `counted` `[E, steps]`, which an item has where not all of it counts (see `counted_parts`). The pass ends when all
    lanes have, and every lane begins the next one with a reset. Nothing is computed ahead: an item is played when it
    is asked for, with the parameters of that moment.

    Args:
        env: batched `[E]`; its recurrent keys for the policy are added.
        policy: a tensordict module.
        episode_steps: T, at most. steps: of one item; T must be a multiple of it.
    """

    def __init__(self, env: EnvBase, policy: Any, *, episode_steps: int, steps: int = 1) -> None:
        if steps < 1 or episode_steps % steps:
            raise InputError(f"steps must divide the {episode_steps} steps of an episode, got {steps}")
        self.base_env = env
        self.env = with_recurrent_state(env, policy)
        self.policy, self.episode_steps, self.steps = policy, episode_steps, steps
        self.root: TensorDictBase | None = None
        self.played = 0
        """Items of the present pass; 0 when it is over."""
        self.going = torch.ones(env.batch_size.numel(), dtype=torch.bool)
        """Which lanes have not yet ended in the present pass."""
        self.whole = False
        """Whether a pass plays all its items, also those that nothing counts: processes side by side go in step."""
        self.seconds = 0.0

    def __len__(self) -> int:
        return self.episode_steps // self.steps

    def __iter__(self) -> Iterator[TensorDict]:
        yield self.rollout()
        while self.played:
            yield self.rollout()

    @torch.no_grad()
    def rollout(self) -> TensorDict:
        """The next `steps` steps, `[E, steps]`."""
        start = time.perf_counter()
        if self.root is None:
            self.root = self.env.reset()
        played, counted = [], []
        for _ in range(self.steps):
            step, self.root = self.env.step_and_maybe_reset(self.policy(self.root))
            played.append(step)
            counted.append(self.going)
            over = ended(step.get("next"), len(self.going))
            self.going = self.going & ~over
        self.played += 1
        if self.played == len(self) or not (self.whole or self.going.any()):
            self._begin_again(~over)
        result: Any = torch.stack(played, 1) if len(played) > 1 else played[0].unsqueeze(1)
        if not all(lanes.all() for lanes in counted):
            flags = torch.stack(counted, 1).view(*self.base_env.batch_size, -1)
            result.set("counted", flags.to(result.device))
        self.seconds += time.perf_counter() - start
        return result

    def _begin_again(self, unfinished: Tensor) -> None:
        """Ends the pass: resets the lanes that are in the middle of an episode, bool `[E]`."""
        self.played, self.going = 0, torch.ones_like(self.going)
        if unfinished.any():
            assert self.root is not None
            for key in self.env.reset_keys:
                like = self.root.get((*key[:-1], "done") if isinstance(key, tuple) else "done")
                chosen = unfinished.view(*self.base_env.batch_size, *[1] * (like.ndim - self.base_env.batch_dims))
                self.root.set(key, chosen.to(like.device).expand_as(like))
            self.root = self.env.reset(self.root, select_reset_only=True)

    def shard(self, rank: int, world: int) -> None:
        """Takes every `world`-th episode, from `rank` on, so that processes side by side never play the same.

        Raises:
            InputError: the environment has no `shard(rank, world)`.
        """
        shard = getattr(self.base_env, "shard", None)
        if shard is None:
            raise InputError(
                f"{type(self.base_env).__name__} has no 'shard', so it cannot be trained in {world} processes"
            )
        shard(rank, world)
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
        return {
            "env": self.base_env.get_extra_state(),
            "memory": None if self.memory is None else self.memory.get_extra_state(),
            "root": None if self.root is None else self.root.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.base_env.set_extra_state(state["env"])
        if self.memory is not None:
            self.memory.set_extra_state(state["memory"])
        if state["root"] is not None:
            self.root = self.env.reset()
            saved = TensorDict.from_dict(state["root"], batch_size=self.root.batch_size[:0])
            for key, value in saved.items(True, True):
                self.root.set(key, value)
            self.base_env.set_extra_state(state["env"])
            if self.memory is not None:
                self.memory.set_extra_state(state["memory"])


def saves_state(env: EnvBase) -> bool:
    """Whether an environment can save its state and take it up again."""
    return all(
        getattr(type(env), hook) is not getattr(nn.Module, hook) for hook in ("get_extra_state", "set_extra_state")
    )


def counted_parts(rollout: TensorDictBase) -> list[TensorDictBase]:
    """What counts of a stream's item: the lanes up to where their episodes ended.

    Args:
        rollout: `[E, T]`, with `counted` `[E, T]` where not all of it counts.

    Returns:
        Rollouts `[E', T']` of lanes that end together, the shortest first; the item itself if all of it counts.
    """
    counted = rollout.get("counted", None)
    if counted is None:
        return [rollout]
    rollout, lengths = rollout.exclude("counted"), counted.sum(-1)
    return [rollout[lengths == t][:, :t] for t in lengths.unique().tolist() if t]
