"""Where a denoising chain starts: Gaussian noise (D2SAC), a remembered action (LAD-TS), or what a network says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.networks.dense import MLP, activation
from diffpolicy.policies.heads import CategoricalHead, Head
from diffpolicy.policies.registry import part_form, part_of


@dataclass(frozen=True)
class Prior:
    """Says where a chain starts: the base of `GaussianPrior`, `ActionMemory`, `NetworkPrior` and priors of your own.

    One that does not remember gives x_I by `begin`, of what its `network` makes of the condition.

    Attributes:
        remembers: whether it reads a recurrent latent action.

    Raises:
        InputError: `from_dict` is given what describes no prior.

    Example:
        >>> Prior.from_dict({"type": "ActionMemory", "key": "step-item"}) == ActionMemory(key="step-item")
        True
    """

    remembers: ClassVar[bool]

    def network(
        self, inputs: int, width: int, agents: int | None, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor] | None:
        """A module of the condition that the policy holds, or None.

        Args:
            inputs: width of the condition. width: of x_I, W. agents: G with parameters of their own, or None.
            generator: draws the initial values.
        """
        return None

    def begin(self, given: Tensor | None, draws: Tensor) -> Tensor:
        """x_I in units of the process's own start, `[.., M, W]`.

        Args:
            given: what the network made of the condition, or None. draws: of N(0, 1), `[.., M, W]`.
        """
        return draws

    def to_dict(self) -> dict[str, Any]:
        """JSON form: the class's name and its fields."""
        form = part_form(self)
        return {"type": form.pop("kind"), **form}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Prior:
        """The prior that `to_dict` described; classes are looked up among those that are imported.

        Args:
            data: with the class's name as `type`, and its fields.

        Raises:
            InputError: no such class, or a field that it has not.
        """
        if not isinstance(data, Mapping):
            raise InputError(f"prior must be an object with its 'type', got {check.show(data)}")
        told = dict(data)
        if not isinstance(told.get("type"), str):
            raise InputError(f"prior must have a 'type', such as GaussianPrior or ActionMemory, got {check.show(data)}")
        return part_of({"kind": told.pop("type", None), **told}, Prior, "prior")


@dataclass(frozen=True)
class GaussianPrior(Prior):
    """Starts a chain from noise, x_I ~ N(0, 1), as in D2SAC (arXiv 2303.13052).

    Example:
        >>> GaussianPrior().to_dict(), GaussianPrior().remembers
        ({'type': 'GaussianPrior'}, False)
    """

    remembers: ClassVar[bool] = False


@dataclass(frozen=True)
class ActionMemory(Prior):
    """Starts a chain from what is remembered of an earlier decision: the latent action of LAD-TS (arXiv 2412.18212).

    Args:
        key: what a memory belongs to. `item`: agent and index, as in the paper's figure; `step-item`: step, agent and
            index, as in the released code. `task` and `slot-task`, their names of before, are still read.
        store: what is remembered, `x0` (the figure) or `probabilities`, softmax(x0) (the code). x0 is clipped to [-1,
            1]: raw, the chain amplifies it by 1 / sqrt(abar_I), 12.5 with the VP schedule, at each visit, and it
            overflows within an episode.
        start: what is there before the first decision, `normal` (N(0, 1)) or `uniform` (1/A); also for indices never
            seen.
        lifetime: `run`: memories outlive episodes while training; `episode`: each episode starts afresh.
        rate: share of the new in a running mean of all that was decided, m + rate (new - m); 1: the last one alone.

    Raises:
        InputError: a word is none of these, or the rate is not above 0 and at most 1.

    Example:
        >>> ActionMemory(key="item", store="x0").remembers
        True
    """

    remembers: ClassVar[bool] = True
    key: Literal["item", "step-item", "task", "slot-task"] = "item"
    store: Literal["x0", "probabilities"] = "x0"
    start: Literal["normal", "uniform"] = "normal"
    lifetime: Literal["run", "episode"] = "run"
    rate: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.key, str):
            object.__setattr__(self, "key", _BEFORE.get(self.key, self.key))
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"ActionMemory.{name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")
        object.__setattr__(self, "rate", check.number(self.rate, "ActionMemory.rate", above=0, most=1))

    def to_dict(self) -> dict[str, Any]:
        form = super().to_dict()
        if self.rate == 1:
            del form["rate"]  # as earlier files have it
        return form

    def follow(self, before: Tensor, x0: Tensor, head: Head) -> Tensor:
        """What is remembered after a decision. Args: before: what was, `[*, W]`. x0, head: of `stored`."""
        now = self.stored(x0, head)
        return now if self.rate == 1 else before + self.rate * (now - before)

    def stored(self, x0: Tensor, head: Head = CategoricalHead()) -> Tensor:  # noqa: B008 (frozen)
        """What is remembered of a decision. Args: x0: the end of the chain, `[*, W]`. head: says what it means."""
        return (head.probabilities(x0) if self.store == "probabilities" else head.remember(x0)).detach()

    def blank(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        """Memories before any decision, `[*, A]`; without a generator the mode of their law."""
        if self.start == "uniform":
            return torch.full(shape, 1.0 / shape[-1], device="cpu")
        return (
            torch.zeros(shape, device="cpu")
            if generator is None
            else torch.randn(shape, generator=generator, device=generator.device)
        )


@dataclass(frozen=True)
class NetworkPrior(Prior):
    """Starts a chain from mean(c) + std(c) z, z ~ N(0, 1), by an MLP of the condition c, learned through the chain.

    The draw is a smooth function of both (Kingma and Welling 2014, arXiv 1312.6114), so that whatever trains the chain
    by a gradient of its end trains its start. std = exp(2 tanh(raw / 2)); the last layer begins at 0, where the law is
    that of a `GaussianPrior`.

    Args:
        hidden: widths of the hidden layers.
        act: their activation, `relu`, `mish`, `tanh` or `silu`.
        learns: whether it is trained; one that is not stays as it is made or given, by
            `policy.prior_network.load_state_dict`.

    Raises:
        InputError: no such activation, or a width is out of range.

    Example:
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), prior=NetworkPrior(hidden=(16,)))
        >>> policy.law(torch.ones(8, 3)).sum().backward()  # through the chain
        >>> bool(policy.prior_network.layers[-1].weight.grad.abs().sum() > 0)
        True
    """

    remembers: ClassVar[bool] = False
    hidden: tuple[int, ...] = (32,)
    act: str = "relu"
    learns: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(check.sequence(self.hidden, "NetworkPrior.hidden")))
        check.flag(self.learns, "NetworkPrior.learns")
        activation(self.act)

    def network(self, inputs: int, width: int, agents: int | None, generator: torch.Generator) -> MLP:
        made = MLP(inputs, 2 * width, self.hidden, self.act, agents, generator)
        last = list(made.parameters())[-2:]  # weight and bias of the last layer
        with torch.no_grad():
            for parameter in last:
                parameter.zero_()
        return made.requires_grad_(self.learns)

    def begin(self, given: Tensor | None, draws: Tensor) -> Tensor:
        assert given is not None
        mean, raw = given.chunk(2, -1)
        return mean + (2 * (raw / 2).tanh()).exp() * draws


_BEFORE = {"task": "item", "slot-task": "step-item"}
"""What files of earlier versions call the keys of a memory."""
_CHOICES = {
    name: get_args(choice)
    for name, choice in {
        "key": Literal["item", "step-item"],
        "store": Literal["x0", "probabilities"],
        "start": Literal["normal", "uniform"],
        "lifetime": Literal["run", "episode"],
    }.items()
}
