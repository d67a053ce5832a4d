"""`DescribedPolicy`: what a policy says of itself, so that a file, or one agent of it, is made of that again."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.class_names import is_ours
from diffpolicy.policies.module import PolicyModule

Made = TypeVar("Made", bound="DescribedPolicy")


class DescribedPolicy(PolicyModule):
    """A subclass gives `config`, and makes itself from it again. The rest has to be given where a file is loaded."""

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON holds them."""
        raise NotImplementedError

    @classmethod
    def _from_config(cls: type[Made], config: dict[str, Any]) -> Made:
        return cls(**config)

    def _check_described(self, config: dict[str, Any]) -> None:
        """Raises InputError if the policy, as it was made, is not what a file describes. Args: config: the file's."""

    def _evidence(self) -> dict[str, Any]:
        """What a file says beside the config, by which a part that has to be given again is known."""
        return {}

    def _check_evidence(self, description: dict[str, Any]) -> None:
        """Raises InputError if a part that was given is not the one that was saved. Args: description: the file's."""

    def _of_agent(self, agent: int) -> dict[str, Any]:
        """Arguments of the constructor that `config` does not tell, for one of its agents."""
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
            if is_ours(cls) or not issubclass(cls, DescribedPolicy):
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

    def for_agent(self: Made, agent: int) -> Made:
        """The policy of one of its agents, whose rows are `[M, F]`; it remembers nothing yet.

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
                f"config() of {type(self).__name__} does not give {', '.join(needs)}, so no part can be made"
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
