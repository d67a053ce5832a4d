"""`Lanes`: environments of one episode each, side by side as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.data import Composite
from torchrl.envs import EnvBase

from diffpolicy.environments.seeds import episode_seed
from diffpolicy.errors import InputError
from diffpolicy.policies.protocols import bare


class Lanes(EnvBase):
    """One-lane environments as an environment of batch `[E]`; what one draws does not depend on its neighbours.

    For environments that cannot be batched themselves, such as Gymnasium's; `EnvProblem` makes it where a factory asks
    for no `batch`. Lanes are stepped one after the other. A lane that has ended waits for its reset: it shows its last
    observation again, at reward 0.

    Args:
        lanes: of batch `[]` or `[1]`, all with the same specs.

    Raises:
        InputError: there is none, one has another batch, or their specs differ.

    Example:
        >>> env = Lanes([Clinic(1, seed=k) for k in range(4)])
        >>> env.rollout(10, RandomRule(env))["observation"].shape
        torch.Size([4, 10, 3])
    """

    batch_locked = True

    def __init__(self, lanes: Sequence[EnvBase]) -> None:
        if not lanes:
            raise InputError("Lanes needs at least one environment, got none")
        for k, lane in enumerate(lanes):
            if lane.batch_size not in (torch.Size([]), torch.Size([1])):
                raise InputError(f"a lane must have batch [] or [1], and lane {k} has {list(lane.batch_size)}")
        super().__init__(device=lanes[0].device, batch_size=torch.Size([len(lanes)]))
        self.lanes = list(lanes)
        self._flat = lanes[0].batch_size == torch.Size([])
        for k, lane in enumerate(lanes[1:], 1):
            _check_alike(k, lane, lanes[0])
        self.observation_spec, self.action_spec, self.reward_spec, self.done_spec = (
            self._of_all([_spec(lane, name) for lane in lanes])
            for name in ("observation_spec", "full_action_spec", "full_reward_spec", "full_done_spec")
        )
        self.observed_whole = all(vars(lane).get("observed_whole", False) for lane in lanes)
        """Whether all that is shown is observed, as of a Gymnasium `Dict`."""
        self._last: list[TensorDictBase] = []

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Closes each lane. Args: raise_if_closed: whether it may not be closed already."""
        super().close(raise_if_closed=raise_if_closed)
        for lane in self.lanes:
            lane.close(raise_if_closed=False)

    def _of_all(self, specs: list[Composite]) -> Composite:
        one = specs[0] if not self._flat else specs[0].unsqueeze(0)
        return one.expand(len(specs), *one.shape[1:])

    def _rows(self, tds: Sequence[TensorDictBase]) -> TensorDictBase:
        return torch.stack(list(tds), 0) if self._flat else torch.cat(list(tds), 0)

    def _row(self, td: TensorDictBase, k: int) -> TensorDictBase:
        return td[k] if self._flat else td[k : k + 1]

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        asked = None if tensordict is None else tensordict.get("_reset", None)
        again = torch.ones(len(self.lanes), dtype=torch.bool) if asked is None else asked.flatten()
        fresh = [lane.reset() if again[k] or not self._last else self._last[k] for k, lane in enumerate(self.lanes)]
        self._last = fresh
        return self._rows(fresh).clone()

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        steps = []
        for k, lane in enumerate(self.lanes):
            if bool(self._last[k]["done"].any()):
                waiting = self._last[k].clone()
                for key in lane.reward_keys:
                    waiting.set(key, lane.full_reward_spec[key].zero())
                steps.append(waiting)
                continue
            chosen = self._row(tensordict.select(*self.action_keys), k)
            steps.append(lane.step(self._last[k].clone(False).update(chosen))["next"])
        self._last = [step.exclude(*self.reward_keys) for step in steps]
        return self._rows(steps)

    def _set_seed(self, seed: int | None) -> None:
        """Each lane its own, by the seed and its number."""
        for k, lane in enumerate(self.lanes):
            lane.set_seed(episode_seed(seed or 0, k))


def called(env: EnvBase) -> str:
    """What sentences call an environment: its class inside of transforms, of a lane, and of what is wrapped."""
    base = bare(env)
    if isinstance(base, Lanes):
        return called(base.lanes[0])
    inner = vars(base).get("_env")  # of a wrapper such as TorchRL's of Gymnasium
    # only a wrapped one is asked: `SerialEnv` looks for what is not its own in its environments, without end
    return type(base if inner is None else getattr(inner, "unwrapped", inner)).__name__


def _check_alike(k: int, lane: EnvBase, first: EnvBase) -> None:
    """Refuses a lane whose specs are not lane 0's, which stand for all: its actions would be taken for others.

    Args:
        k: number of the lane.
    """
    shown, before = (_spec(x, "observation_spec") for x in (lane, first))
    if set(shown.keys(True, True)) != set(before.keys(True, True)):
        raise InputError(f"lane {k} shows {sorted(map(str, shown.keys(True, True)))}, unlike lane 0")
    for key in shown.keys(True, True):
        now, was = shown[key], before[key]
        if (now.shape, now.dtype) != (was.shape, was.dtype):
            told = f"{list(now.shape)} of {now.dtype}, and in lane 0 {list(was.shape)} of {was.dtype}"
            raise InputError(f"lane {k} shows {key!r} as {told}; lanes must be alike")
    chosen, others = (_spec(x, "full_action_spec") for x in (lane, first))
    for key in {*chosen.keys(True, True), *others.keys(True, True)}:
        if chosen.get(key, None) != others.get(key, None):
            raise InputError(f"lane {k} decides otherwise than lane 0 under {key!r}; lanes must have one action spec")


def _spec(lane: EnvBase, name: str) -> Composite:
    return getattr(lane, name)
