"""`SavedPolicy`: a policy that is written to a folder and made again from it, its class by name, nothing pickled."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy._read import show_path
from diffpolicy.errors import InputError
from diffpolicy.policies import files
from diffpolicy.policies.class_names import file_name, is_ours, source_file, where
from diffpolicy.policies.module import PolicyModule

Policy = TypeVar("Policy", bound="SavedPolicy")


class SavedPolicy(PolicyModule):
    """What of a policy is written, and how it is read.

    A subclass gives `config`, and makes itself from it again. One that no file names, since policies are made of its
    subclasses alone, says `base=True`; one that files of earlier versions call otherwise, `formerly="Name"`.
    """

    kinds: ClassVar[dict[str, type[SavedPolicy]]] = {}
    ambiguous: ClassVar[set[str]] = set()
    """Names of several classes: a function that makes a class may make another one by its next call."""
    bases: ClassVar[set[type[SavedPolicy]]] = set()

    def __init_subclass__(cls, *, base: bool = False, formerly: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if base:
            SavedPolicy.bases.add(cls)
            return
        if formerly is not None:
            SavedPolicy.kinds[formerly] = cls
        name = cls._file_name()
        if "<locals>" in name and name in SavedPolicy.kinds:
            SavedPolicy.ambiguous.add(name)
        SavedPolicy.kinds[name] = cls
        if cls.__module__ == "__main__":  # as earlier versions called it
            SavedPolicy.kinds[f"__main__:{cls.__qualname__}"] = cls

    @classmethod
    def _file_name(cls) -> str:
        """What files call the class."""
        return file_name(cls)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON holds them."""
        raise NotImplementedError

    @classmethod
    def _from_config(cls: type[Policy], config: dict[str, Any]) -> Policy:
        return cls(**config)

    def _check_described(self, config: dict[str, Any]) -> None:
        """Raises InputError if the policy, as it was made, is not what a file describes. Args: config: the file's."""

    def _evidence(self) -> dict[str, Any]:
        """What a file says beside the config, by which a part that has to be given again is known."""
        return {}

    def _check_evidence(self, description: dict[str, Any]) -> None:
        """Raises InputError if a part that was given is not the one that was saved. Args: description: the file's."""

    def _of_agent(self, agent: int) -> dict[str, Any]:
        """Arguments of the constructor that `config` does not tell, for one agent of a stack."""
        return {}

    def needs(self) -> list[str]:
        """Arguments of a subclass's constructor that `config` does not tell, so that loading must be given them again.

        One that is kept as an attribute of its name and has its default value need not be.
        """
        found = []
        for name, p in self._untold():
            kept = getattr(self, name, p.empty)
            usual = kept is p.default or (isinstance(kept, (str, int, float)) and kept == p.default)
            if p.default is p.empty or not usual:
                found.append(name)
        return found

    def kept(self) -> dict[str, Any]:
        """Numbers and texts that `config` does not tell and the policy keeps by the name of the argument."""
        values = {name: getattr(self, name, None) for name, _ in self._untold()}
        return {name: value for name, value in values.items() if isinstance(value, (str, int, float))}

    def _untold(self) -> list[tuple[str, inspect.Parameter]]:
        """Arguments of a subclass's constructor that `config` does not tell."""
        told, found = self.config(), []
        for cls in type(self).__mro__:
            if is_ours(cls) or not issubclass(cls, SavedPolicy):
                break
            parameters = inspect.signature(vars(cls)["__init__"]).parameters if "__init__" in vars(cls) else {}
            named = [p for p in list(parameters.values())[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            found += [(p.name, p) for p in named if p.name not in told]
        return found

    def _check_kept(self, kept: dict[str, Any]) -> None:
        """Raises InputError if an argument that was given is not what it was. Args: kept: of the file."""
        for name, value in self.kept().items():
            if name in kept and kept[name] != value:
                raise InputError(
                    f"{name} was {check.show(kept[name])} when the policy was saved, got {check.show(value)}"
                )

    def tensors(self) -> dict[str, Tensor]:
        """What is saved: parameters and buffers by name."""
        return {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items() if isinstance(v, Tensor)}

    def _check_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Raises InputError if a file's tensors are not those of the policy: other names, shapes or kinds of number."""
        own = {k: v for k, v in self.state_dict().items() if isinstance(v, Tensor)}
        for name in sorted(own.keys() | tensors.keys()):
            a, b = own.get(name), tensors.get(name)
            if a is None or b is None or a.shape != b.shape:
                shapes = [None if x is None else list(x.shape) for x in (b, a)]
                raise InputError(f"tensor '{name}' has shape {shapes[0]}, and policy.json asks for {shapes[1]}")
            if a.is_floating_point() != b.is_floating_point():
                types = [str(x.dtype).removeprefix("torch.") for x in (b, a)]
                raise InputError(f"tensor '{name}' is of type {types[0]}, and policy.json asks for {types[1]}")

    def _load_tensors(self, tensors: dict[str, Tensor]) -> None:
        types = {tensors[k].dtype for k, _ in self.named_parameters()}
        if len(types) == 1:  # of a policy in double or half precision too
            self.to(types.pop())
        # assigned, so that a normaliser's sums keep a precision of their own
        self.load_state_dict(tensors, strict=False, assign=True)

    def save(self, folder: str | Path) -> Path:
        """Writes `policy.safetensors` and `policy.json` into a folder.

        Raises:
            InputError: JSON cannot hold what the policy says of itself, or the folder cannot be written to.
        """
        return files.write(folder, self._description(), self.tensors())

    def _description(self) -> dict[str, Any]:
        """What is written beside the tensors."""
        file, needs, kept = source_file(type(self)), self.needs(), self.kept()
        return {
            "class": self._file_name(),
            **({} if file is None else {"class_file": file}),
            "config": self.config(),
            **({"needs": needs} if needs else {}),
            **({"kept": kept} if kept else {}),
            **self._evidence(),
            "trained": files.portable(self.trained),
        }

    def check_saves(self) -> None:
        """Refuses, before any work, a policy that no file could hold, or whose file would make another one.

        One that takes a part or an argument which no file holds is not tried: it is given again when it is loaded.

        Raises:
            InputError: it says what is not told.
        """
        description = self._description()
        for key, value in description.items():
            files.check_json(value, key)
        if "evidence" not in description:
            return
        again = json.loads(json.dumps(description))
        try:
            policy = type(self)._described_by(again, {})()
        except Exception:  # it asks for something when it is loaded, and says so
            return
        policy._load_tensors(self.tensors())
        policy._check_evidence(again)

    @classmethod
    def load(cls: type[Policy], path: str | Path, **modules: Any) -> Policy:
        """A policy from its folder or either of its files; nothing is unpickled.

        Called on `Policy` it makes the class that the file names, which must have been imported. Called on a
        class of your own it takes the files of every class of that name, also those that a script wrote.

        Args:
            path: folder or file.
            modules: what no file describes, by the constructor's name: `denoiser=MyNet()`.

        Raises:
            InputError: not a policy of this schema or class, its tensors do not fit or are not finite, or something
                must be given.
        """
        file = files.read(path)
        try:
            make = cls._described_by(file.description, modules)
            _check_size(file)
            # first without memory, so that what a file's numbers ask for is never more than what its tensors hold
            skeleton = _on_meta(make)
            if skeleton is not None:
                skeleton._check_tensors(file.tensors)
            policy = _made(make)
            policy._check_tensors(file.tensors)
            _check_finite(file.tensors)
            policy._load_tensors(file.tensors)
            policy._check_kept(_object(file.description.get("kept") or {}, "kept"))
            policy._check_evidence(file.description)
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
    def _described_by(cls: type[Policy], description: dict[str, Any], modules: dict[str, Any]) -> Callable[[], Policy]:
        """A function that makes the policy of a file, with fresh parameters. Args: modules: see `load`."""
        kind = cls._kind(description.get("class"), description.get("class_file"))
        config = _object(description.get("config"), "config")
        _check_keys(config)
        trained = _object(description.get("trained") or {}, "trained")
        missing = [str(n) for n in check.sequence(description.get("needs", []), "'needs'") if str(n) not in modules]
        if missing:
            raise InputError(
                f"a {kind.__name__} takes {', '.join(missing)}, which the file does not hold: pass it, "
                f"load(path, {missing[0]}=...), or let config() of the class tell it before saving"
            )

        def make() -> Policy:
            policy = kind._from_config(copy.deepcopy(config) | modules)
            policy._check_described(config)
            policy.trained = copy.deepcopy(trained)
            return policy

        return make

    @classmethod
    def _kind(cls: type[Policy], name: Any, file: Any) -> type[Policy]:
        """The class that a file names, if it is this one or derived from it. Args: file: that defines it, a hint."""
        if not isinstance(name, str):
            raise InputError(f"class {check.show(name)} is no name of a class")
        kind, qualname = SavedPolicy.kinds.get(name), name.partition(":")[2]
        if cls in SavedPolicy.bases and kind is not None and name not in SavedPolicy.ambiguous:
            return cast("type[Policy]", kind)
        # the class that was called comes first: a script's own may have another module's name in the file
        if name == cls._file_name() or (qualname == cls.__qualname__ and not (kind and issubclass(kind, cls))):
            return cls
        if name in SavedPolicy.ambiguous:
            raise InputError(f"several classes are called {qualname} here: call load on the right one itself")
        if kind is not None and not issubclass(kind, cls):
            raise InputError(f"it is a {kind.__name__}, not a {cls.__name__}")
        if kind is not None:
            return kind
        if not qualname:
            raise InputError(f"class {check.show(name)} is not known here; import it first")
        own = qualname.rpartition(".")[2]
        raise InputError(f"its class {where(name, file)}: import {own} first, or call {own}.load(path)")

    def for_agent(self: Policy, agent: int) -> Policy:
        """The policy of one of a stack's agents, whose rows are `[M, F]`; it remembers nothing yet.

        Raises:
            InputError: the policy has one set of parameters for all, or no such agent.
        """
        if self.agents is None:
            raise InputError("all agents share this policy's parameters, so there is none to choose")
        if not 0 <= agent < self.agents:
            raise InputError(f"agent must be from 0 to {self.agents - 1}, got {agent}")
        needs = self.needs()
        if needs:
            raise InputError(
                f"config() of {type(self).__name__} does not tell {', '.join(needs)}, so no part can be made"
            )
        try:
            single = type(self)._from_config({**self.config(), "agents": None, **self._of_agent(agent)})
        except TypeError as error:
            raise InputError(f"{type(self).__name__} cannot be made for one agent: {error}") from None
        own = {k: v for k, v in single.state_dict().items() if isinstance(v, Tensor)}
        mine = self.state_dict()
        # what is not there by that name is an agent's own module, which came with its values
        shared = {k: v for k, v in own.items() if k in mine}
        tensors = {k: mine[k] if mine[k].shape == v.shape else mine[k][agent].view_as(v) for k, v in shared.items()}
        single.load_state_dict(tensors, strict=False)
        single.trained = dict(self.trained)
        single.train(self.training)
        return single


def _made(make: Callable[[], Policy]) -> Policy:
    """The policy of a file; whatever is wrong with its config is one sentence."""
    try:
        return make()
    except InputError as error:
        raise InputError(f"config: {error}") from None
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError, ArithmeticError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"'config' does not describe the class: {reason}") from None


def _on_meta(make: Callable[[], Policy]) -> Policy | None:
    """The policy of a file without its memory; None where a class of a user cannot be made so."""
    try:
        with torch.device("meta"):
            return make()
    except InputError as error:
        raise InputError(f"config: {error}") from None
    except Exception:  # what is really wrong shows when it is made in earnest
        return None


def _check_size(file: files.PolicyFile) -> None:
    """Refuses more agents than a file has numbers: each has parameters of its own, and making them takes time."""
    agents = file.description["config"].get("agents")
    held = sum(x.numel() for x in file.tensors.values())
    if isinstance(agents, (int, float)) and agents > held:
        raise InputError(f"config: agents is {check.show(agents)}, and the tensors hold {held} numbers")


def _check_finite(tensors: dict[str, Tensor]) -> None:
    """Refuses tensors that hold NaN or infinity, under which every choice would be the first one."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            at = (~tensor.isfinite()).nonzero()[0].tolist()
            raise InputError(
                f"tensor '{name}' holds {tensor[tuple(at)].item()} at {at}: its training must have diverged"
            )


def _check_keys(config: dict[str, Any]) -> None:
    """Refuses keys of tensordicts that are none: a key is a text, or a list of texts."""
    many = config.get("observation_keys", [])
    keys = {f"observation_keys[{k}]": key for k, key in enumerate(many if isinstance(many, list) else [many])}
    keys |= {name: config[name] for name in ("action_key", "mask_key", "valid_key") if config.get(name) is not None}
    for name, key in keys.items():
        names = key if isinstance(key, list) else [key]
        if not names or not all(isinstance(n, str) and n for n in names):
            raise InputError(f"config: {name} must be a text or a list of texts, got {check.show(key)}")
    for name, kind in {"information": str, "normalize": bool}.items():
        if not isinstance(config.get(name, kind()), kind):
            raise InputError(f"config: {name} must be a {kind.__name__}, got {check.show(config[name])}")


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"'{name}' must be an object, got {check.show(value)}")
    return value
