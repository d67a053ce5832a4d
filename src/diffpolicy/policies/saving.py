"""`SavedPolicy`: a policy that is written to a folder and made again from it, its class by name, nothing pickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy._read import show_path
from diffpolicy.errors import InputError
from diffpolicy.policies import files
from diffpolicy.policies.draws import Draws

Policy = TypeVar("Policy", bound="SavedPolicy")


class SavedPolicy(TensorDictModuleBase):
    """What of a policy is written, and how it is read; the base of `ChoicePolicy`.

    A subclass gives `config`, and makes itself from it again. Its constructor sets `agents`, the size of its stack or
    None; `trained`, what is told of how the policy was trained; and `generator`, of its draws.
    """

    kinds: ClassVar[dict[str, type[SavedPolicy]]] = {}
    agents: int | None
    trained: dict[str, Any]
    generator: Draws

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # the class that stands right on this one is a base of policies and none itself
        if SavedPolicy not in cls.__bases__:
            SavedPolicy.kinds[cls._file_name()] = cls

    @classmethod
    def _file_name(cls) -> str:
        """What files call the class: ours by the bare name, a user's with its module, so neither hides the other."""
        ours = cls.__module__.split(".")[0] == "diffpolicy"
        return cls.__name__ if ours else f"{cls.__module__}:{cls.__qualname__}"

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON holds them."""
        raise NotImplementedError

    @classmethod
    def _from_config(cls: type[Policy], config: dict[str, Any]) -> Policy:
        return cls(**config)

    def tensors(self) -> dict[str, Tensor]:
        """What is saved: parameters and buffers by name."""
        return {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items() if isinstance(v, Tensor)}

    def _load_tensors(self, tensors: dict[str, Tensor]) -> None:
        own = {k: v for k, v in self.state_dict().items() if isinstance(v, Tensor)}
        for name in sorted(own.keys() | tensors.keys()):
            a, b = own.get(name), tensors.get(name)
            if a is None or b is None or a.shape != b.shape:
                shapes = [None if x is None else list(x.shape) for x in (b, a)]
                raise InputError(f"tensor '{name}' has shape {shapes[0]}, and policy.json asks for {shapes[1]}")
        self.load_state_dict(tensors, strict=False)

    def save(self, folder: str | Path) -> Path:
        """Writes `policy.safetensors` and `policy.json` into a folder.

        Raises:
            InputError: the folder cannot be written to.
        """
        description = {"class": self._file_name(), "config": self.config(), "trained": self.trained}
        return files.write(folder, description, self.tensors())

    @classmethod
    def load(cls: type[Policy], path: str | Path, **modules: Any) -> Policy:
        """A policy from its folder or either of its files; nothing is unpickled.

        Called on `ChoicePolicy` it makes the class that the file names, which must have been imported.

        Args:
            path: folder or file.
            modules: networks of your own, which no file describes, by the constructor's name: `denoiser=MyNet()`.

        Raises:
            InputError: not a policy of this schema, or its tensors do not fit.
        """
        file = files.read(path)
        try:
            policy = cls._described_by(file.description, modules)
            policy._load_tensors(file.tensors)
        except InputError as error:
            mixed = "" if file.whole else "; and its tensors are not those that policy.json was written with"
            raise InputError(f"policy {show_path(path)}: {error}{mixed}") from None
        if not file.whole:
            raise InputError(
                f"policy {show_path(path)}: policy.safetensors is not the file that policy.json was written with (its "
                "SHA-256 is another); bring both from the same folder, or save the policy again"
            )
        policy.eval()
        return policy

    @classmethod
    def _described_by(cls: type[Policy], description: dict[str, Any], modules: dict[str, Any]) -> Policy:
        """The policy that a file describes, with fresh parameters. Args: modules: see `load`."""
        kind = cls._kind(description.get("class"))
        config, trained = description.get("config"), description.get("trained") or {}
        for name, value in {"config": config, "trained": trained}.items():
            if not isinstance(value, dict):
                raise InputError(f"'{name}' must be an object, got {check.show(value)}")
        try:
            policy = kind._from_config({**description["config"], **modules})
        except InputError as error:
            raise InputError(f"config: {error}") from None
        except (LookupError, TypeError, AttributeError, ValueError, RuntimeError, ArithmeticError) as error:
            raise InputError(f"'config' does not describe a {kind.__name__}: {error}") from None
        policy.trained = dict(trained)
        return policy

    @classmethod
    def _kind(cls: type[Policy], name: Any) -> type[Policy]:
        """The class that a file names, if it is this one or derived from it."""
        kind = SavedPolicy.kinds.get(str(name))
        if kind is None:
            raise InputError(f"class {check.show(name)} is not known here; import its module first")
        if not issubclass(kind, cls):
            raise InputError(f"it is a {kind.__name__}, not a {cls.__name__}")
        return kind

    def for_agent(self: Policy, agent: int) -> Policy:
        """The policy of one of a stack's agents, whose rows are `[M, F]`; it remembers nothing yet.

        Raises:
            InputError: the policy has one set of parameters for all, or no such agent.
        """
        if self.agents is None:
            raise InputError("all agents share this policy's parameters, so there is none to choose")
        if not 0 <= agent < self.agents:
            raise InputError(f"agent must be from 0 to {self.agents - 1}, got {agent}")
        single = type(self)._from_config({**self.config(), "agents": None})
        own = {k: v for k, v in single.state_dict().items() if isinstance(v, Tensor)}
        mine = self.state_dict()
        tensors = {k: mine[k] if mine[k].shape == v.shape else mine[k][agent].view_as(v) for k, v in own.items()}
        single.load_state_dict(tensors, strict=False)
        single.trained = dict(self.trained)
        single.train(self.training)
        return single

    def get_extra_state(self) -> dict[str, Tensor]:
        """The generator's state, so that a checkpoint continues the same draws."""
        return {"generator": self.generator.get_state()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Takes up what `get_extra_state` gave."""
        self.generator.set_state(state["generator"].cpu().to(torch.uint8))
