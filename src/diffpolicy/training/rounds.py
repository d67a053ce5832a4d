"""`RoundsModule`: what the modules share that train any module in rounds which they play themselves."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import nn
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.environments.checks import check_policy
from diffpolicy.errors import InputError
from diffpolicy.training.trainable import Numbers, Trainable, described, own_modules


class RoundsModule(Trainable):
    """Trains any module in a number of rounds, each a training step, which `fit` takes as an episode.

    Args:
        module: whose parameters move.
        rounds: in all.
        env: where the module is to decide, if it is a policy: `fit` checks before the first round that it can; or None.

    Raises:
        InputError: the module has no parameters, or there are no rounds.
    """

    kind: ClassVar[str]
    """What a checkpoint calls the module's state."""
    round_name: ClassVar[str] = "round"
    """What the history calls a round."""

    def __init__(self, module: nn.Module, *, rounds: int, env: EnvBase | None = None) -> None:
        super().__init__()
        if not isinstance(module, nn.Module) or not any(True for _ in module.parameters()):
            raise InputError(f"module must be a module with parameters, got {check.show(module)}")
        self.automatic_optimization = False
        self.module = module
        self.__dict__["env"] = env
        self.passes, self.pass_items, self.episodes = rounds, 1, 0
        self.flush_denormals = False  # the bundled policies were trained without
        self.history: list[dict[str, float]] = []

    @property
    def policy(self) -> nn.Module:  # type: ignore[override]
        """What is trained."""
        return self.module

    def content(self) -> dict[str, Any]:
        """What can be seen of what it was built from."""
        own = own_modules(self.module)
        return {
            "module": type(self),
            "trains": described(type(self.module)),
            "shapes": [list(p.shape) for p in self.module.parameters()],
            **({"modules": own} if own else {}),
        }

    def check(self) -> None:
        super().check()
        if self.__dict__["env"] is not None:
            check_policy(self.module, self.__dict__["env"])

    def train_dataloader(self) -> Numbers:
        assert self.passes is not None
        return Numbers(self, self.passes)

    def end_round(self, number: int, **figures: float) -> None:
        """A row of the history. Args: number: of the round. figures: of it, by name."""
        self.episodes += 1
        self.history.append({self.round_name: float(number), **figures})

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it beside parameters and history."""

    @abstractmethod
    def take(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` gave."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[self.kind] = {**self.state(), "history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint[self.kind]
        self.take(state)
        self.history = list(state["history"])
        self.episodes = len(self.history)


def require_functions(**given: Any) -> None:
    """Raises InputError if an argument is no function. Args: given: by name."""
    for name, value in given.items():
        if not callable(value):
            raise InputError(f"{name} must be a function, got {check.show(value)}")
