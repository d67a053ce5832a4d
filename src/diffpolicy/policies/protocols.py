"""What policies and environments may do beside deciding and stepping: who has the methods of a protocol is asked.

Nobody inherits from these; a policy of your own, or an environment, takes part by having what one of them names.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torchrl.envs import EnvBase, TensorDictPrimer, TransformedEnv

# Policies


@runtime_checkable
class Decides(Protocol):
    """Any policy, trained or a rule: what takes a tensordict and gives it back with an action."""

    def __call__(self, tensordict: Any, /) -> TensorDictBase:
        """Decides. Args: tensordict: what is seen."""


@runtime_checkable
class Remembers(Protocol):
    """Carries something from step to step, as fits an environment; None: it does not after all."""

    def primer_for(self, env: EnvBase) -> TensorDictPrimer | None:
        """The transform that adds the recurrent keys to an environment of batch `[E]`."""


@runtime_checkable
class RemembersAlike(Protocol):
    """Carries the same from step to step in every environment (TorchRL's name for it)."""

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The transform that adds the recurrent keys."""


@runtime_checkable
class ReadsKeys(Protocol):
    """Says which keys it reads, as a `TensorDictModule` does."""

    in_keys: Sequence[NestedKey]


@runtime_checkable
class ChecksEnv(Protocol):
    """Knows which environments it fits."""

    def check_env(self, env: EnvBase) -> None:
        """Raises InputError if it does not fit this one."""


@runtime_checkable
class OwnsGenerator(Protocol):
    """Draws from a generator of its own."""

    generator: torch.Generator


@runtime_checkable
class Seeded(Protocol):
    """Knows the seed that its draws come from."""

    seed: int


@runtime_checkable
class Resampled(Protocol):
    """Denoises by a sampler that may be another when it acts."""

    sampler: str
    path: Sequence[int]

    def with_sampler(self, sampler: str, steps: int | None = None) -> Decides:
        """The same parameters under another sampler."""


@runtime_checkable
class Freezes(Protocol):
    """Computes something that does not depend on its inputs, as a denoiser its embedding of time."""

    def frozen(self) -> AbstractContextManager[None]:
        """While it lasts, that is constant."""


def frozen(part: object) -> AbstractContextManager[None]:
    """While it lasts, what depends on no input is constant in a part that `Freezes`; a flag of that name is none."""
    return part.frozen() if isinstance(part, Freezes) and callable(part.frozen) else nullcontext()


def seed_of(policy: object) -> int:
    """The seed of a policy, 0 of one that knows none."""
    return int(policy.seed) if isinstance(policy, Seeded) else 0


# Environments


@runtime_checkable
class ShowsLevel(Protocol):
    """Has levels of what decisions may use, and says which one it shows; a policy, which one it reads."""

    information: str


@runtime_checkable
class Shardable(Protocol):
    """Shares its episodes out over processes side by side."""

    def shard(self, rank: int, world: int) -> None:
        """Makes this one of `world` environments alike, number `rank`; it is called before the first reset."""


@runtime_checkable
class Reseedable(Protocol):
    """Begins its draws again from a seed."""

    def set_seed(self, seed: int) -> int | None:
        """Takes the seed; `EnvBase` gives the next one."""


@runtime_checkable
class Digested(Protocol):
    """Says by a checksum what it plays, so that a run on another is not resumed on it."""

    def digest(self) -> str:
        """The checksum."""


def bare(env: EnvBase) -> Any:
    """The environment inside all transforms.

    Transforms and `SerialEnv` pass on attributes that are not theirs, so environments are asked by their class:
    `issubclass(type(bare(env)), Shardable)`.
    """
    base: Any = env
    while isinstance(base, TransformedEnv):
        base = base.base_env
    return base
