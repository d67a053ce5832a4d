"""`Trainable`: what `fit` asks of a LightningModule."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import lightning as L
from torch import nn
from torch.utils.data import IterableDataset
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy._identity import describe
from diffpolicy._suggest import meant
from diffpolicy.environments.problem import Problem
from diffpolicy.environments.problem_checks import check_problem
from diffpolicy.errors import InputError
from diffpolicy.policies.protocols import Digested, bare
from diffpolicy.policies.saving import SavedPolicy

LIBRARIES = ("diffpolicy", "torch", "torchrl", "tensordict", "lightning")
"""Modules of theirs are told by what made them."""


class Trainable(L.LightningModule):
    """A module that `fit` trains: one pass after the other, each an epoch that adds a row to `history`.

    Attributes:
        policy: what is trained.
        identity: what the run is, said by whoever built the module, of what `identity.describe` takes; None: `content`
            tells it.
        problem: what it is trained on, where `check` is to find out whether that is sound.
        compiled: whether updates run through `torch.compile`.
        passes: in all, when nobody says how many; None: without end.
        pass_items: items of the training set that make a pass; None: all of them.
        flush_denormals: whether numbers below 1e-38 are rounded to zero while it trains.
        updates_made: of parameters, since it was built; None: it does not count them.
    """

    identity: Any = None
    problem: Problem | None = None
    compiled: bool = False
    passes: int | None = None
    pass_items: int | None = None
    flush_denormals: bool = True
    updates_made: int | None = None
    policy: nn.Module
    episodes: int
    history: list[dict[str, float]]

    @property
    def lanes(self) -> int:
        """Episodes of a pass, in one process."""
        return 1

    @property
    def amid_pass(self) -> bool:
        """Whether a pass has begun that is not over, so that a checkpoint of now could not be gone on from."""
        return False

    def set_compiled(self, compiled: bool) -> None:
        """Whether updates run through `torch.compile`; refused where they cannot."""
        if compiled:
            raise InputError(f"updates of {type(self).__name__} cannot be compiled")

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            raise InputError(f"{type(self).__name__} trains in one process, got {self.trainer.world_size}")

    def content(self) -> dict[str, Any]:
        """What tells this run from another: class, hyperparameters and seeds, as far as they can be seen."""
        return {"module": type(self)}

    def check(self) -> None:
        """Refuses, before the first pass, an unsound problem and parts that do not fit each other.

        Raises:
            InputError: one sentence that names the key and the value.
        """
        if self.problem is not None:
            check_problem(self.problem)

    def check_saves(self) -> None:
        """Refuses, before the first pass, what could not be resumed.

        Raises:
            InputError: it says why.
        """

    def remember(self) -> None:
        """Puts into the policy what it remembers; training goes on as if nothing had happened."""

    def finish(self) -> None:
        """Makes of what is trained what a run leaves behind."""
        self.remember()


class Numbers(IterableDataset[int]):
    """The numbers of a module's passes, from the first that is not done. Args: module: counts. total: of them."""

    def __init__(self, module: Trainable, total: int) -> None:
        self.module, self.total = module, total

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[int]:
        yield from range(self.module.episodes, self.total)


def check_rates(groups: Iterable[str], rates: Mapping[str, float]) -> None:
    """Refuses learning rates of other groups than an objective's, or that are no numbers of at least 0.

    Args:
        groups: of it. rates: by name.

    Raises:
        InputError: names the rate.
    """
    names = list(groups)
    if set(names) != set(rates):
        near = next((found for name in rates if name not in names and (found := meant(name, names))), "")
        raise InputError(f"learning_rates must name {', '.join(names)}, got {', '.join(map(str, rates))}{near}")
    for name, rate in rates.items():
        check.number(rate, f"learning_rates.{name}", least=0)


def described(value: Any) -> Any:
    """A value's content, or its class where that cannot be told."""
    try:
        return describe(value)
    except (InputError, ValueError):
        return describe(type(value))


def policy_content(policy: Any) -> Any:
    """Class, constructor's arguments (the seed among them) and shapes of a policy's parameters."""
    try:
        config = policy.config()
    except (AttributeError, NotImplementedError, InputError):
        config = None
    shapes = {name: list(p.shape) for name, p in policy.named_parameters()} if isinstance(policy, nn.Module) else {}
    kept = policy.kept() if config is not None and isinstance(policy, SavedPolicy) else {}
    config = {**config, **kept} if kept else config
    own = own_modules(policy)
    parts = {"modules": own} if own else {}
    return {"class": described(type(policy)), "config": described(config), "parameters": shapes, **parts}


def part_content(part: Any) -> dict[str, Any]:
    """Class, public numbers, texts and functions of an object and its users' modules: what each was given, mostly."""
    gamma = getattr(getattr(part, "_value_estimator", None), "gamma", None)  # TorchRL keeps it there
    own = own_modules(part)
    return {
        "class": described(type(part)),
        **_plain(part),
        **({} if gamma is None else {"gamma": float(gamma)}),
        **({"modules": own} if own else {}),
    }


def own_modules(part: Any) -> dict[str, Any]:
    """Class and public numbers, texts and functions of all modules that a user's module is put together of, by name.

    What the class's description leaves out is told by it, such as a gain that is no parameter.

    Args:
        part: any; only those inside it count, and none where it is no module.
    """
    roots: list[str] = []
    found: dict[str, Any] = {}
    for name, module in part.named_modules() if isinstance(part, nn.Module) else ():
        if name and type(module).__module__.split(".")[0] not in LIBRARIES:
            roots.append(name)
        if any(name == root or name.startswith(f"{root}.") for root in roots):
            found[name] = {"class": described(type(module)), **_plain(module)}
    return found


def _plain(part: Any) -> dict[str, Any]:
    """Public numbers, texts and functions that an object keeps."""
    return {
        name: described(value)
        for name, value in vars(part).items()
        if not name.startswith("_") and name != "training" and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, (int, float, str, types.FunctionType, functools.partial))


def env_content(env: EnvBase) -> dict[str, Any]:
    """What an environment is: class, keys, shapes and types of its specs, and its `digest()` if it has one."""
    base = bare(env)
    specs = {"observation": env.full_observation_spec, "action": env.full_action_spec, "reward": env.full_reward_spec}
    return {
        "class": described(type(env)),
        **{
            name: [
                f"{key!r} {list(spec[key].shape)} {spec[key].dtype}" for key in sorted(spec.keys(True, True), key=str)
            ]
            for name, spec in specs.items()
        },
        **({"digest": base.digest()} if issubclass(type(base), Digested) else {}),
    }
