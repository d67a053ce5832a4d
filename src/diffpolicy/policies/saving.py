"""`SavedPolicy`: a policy that is written to a folder and made again from it, its class by name, nothing pickled."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy._read import show_path
from diffpolicy.errors import InputError
from diffpolicy.policies import files
from diffpolicy.policies.class_names import ELSEWHERE, file_name, source_file, where
from diffpolicy.policies.described import DescribedPolicy
from diffpolicy.policies.loading import as_object, check_finite, check_keys, check_size, made, on_meta

Made = TypeVar("Made", bound="SavedPolicy")


class SavedPolicy(DescribedPolicy):
    """Writes a policy to a folder, and reads it back.

    A subclass gives `config`, and makes itself from it again. One that no file names, since policies are made of its
    subclasses alone, says `base=True`; one that files of earlier versions call otherwise, `formerly="Name"`.

    Example:
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), steps=3, seed=1)
        >>> folder = policy.save("policies/clinic")
        >>> again = SavedPolicy.load(folder)
        >>> type(again).__name__, all(torch.equal(p, q) for p, q in zip(policy.parameters(), again.parameters()))
        ('DiffusionPolicy', True)
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
    def load(cls: type[Made], path: str | Path, **modules: Any) -> Made:
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
            check_size(file)
            # first without memory, so that what a file's numbers ask for is never more than what its tensors hold
            skeleton = on_meta(make)
            if skeleton is not None:
                skeleton._check_tensors(file.tensors)
            policy = made(make)
            policy._check_tensors(file.tensors)
            check_finite(file.tensors)
            policy._load_tensors(file.tensors)
            policy._check_kept(as_object(file.description.get("kept") or {}, "kept"))
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
    def _described_by(cls: type[Made], description: dict[str, Any], modules: dict[str, Any]) -> Callable[[], Made]:
        """A function that makes the policy of a file, with fresh parameters. Args: modules: see `load`."""
        kind = cls._kind(description.get("class"), description.get("class_file"))
        config = as_object(description.get("config"), "config")
        check_keys(config)
        trained = as_object(description.get("trained") or {}, "trained")
        missing = [str(n) for n in check.sequence(description.get("needs", []), "'needs'") if str(n) not in modules]
        if missing:
            raise InputError(
                f"a {kind.__name__} takes {', '.join(missing)}, which the file does not hold: pass it, "
                f"load(path, {missing[0]}=...), or let config() of the class tell it before saving"
            )

        def make() -> Made:
            policy = kind._from_config(copy.deepcopy(config) | modules)
            policy._check_described(config)
            policy.trained = copy.deepcopy(trained)
            return policy

        return make

    @classmethod
    def _kind(cls: type[Made], name: Any, file: Any) -> type[Made]:
        """The class that a file names, if it is this one or derived from it. Args: file: that defines it, a hint."""
        if not isinstance(name, str):
            raise InputError(f"class {check.show(name)} is not the name of a class")
        if name in ELSEWHERE and name not in SavedPolicy.kinds:
            import_module(ELSEWHERE[name])
        kind, qualname = SavedPolicy.kinds.get(name), name.partition(":")[2]
        if cls in SavedPolicy.bases and kind is not None and name not in SavedPolicy.ambiguous:
            return cast("type[Made]", kind)
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
