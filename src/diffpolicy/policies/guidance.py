"""How a policy is guided while it acts: by its condition, or by a critic of its actions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.diffusion.guidance import along_gradient, classifier_free
from diffpolicy.errors import InputError
from diffpolicy.networks.critic import CriticEnsemble, least
from diffpolicy.policies.class_names import file_name
from diffpolicy.policies.finite import refuse_unsure
from diffpolicy.policies.registry import part_form, part_of

if TYPE_CHECKING:
    from diffpolicy.policies.steered import SteeredPolicy


@dataclass(frozen=True)
class Guided:
    """What stands for a prepared condition where a chain is guided. Args: predicted: y(x, t) of its rows."""

    predicted: Callable[[Tensor, Any], Tensor]


@dataclass(frozen=True)
class Guidance:
    """Base of what guides chains; `DiffusionPolicy.with_guidance` takes one.

    Example:
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), condition_drop=0.1)
        >>> isinstance(policy.with_guidance(ClassifierFree(0.5)).guidance, Guidance)
        True
    """

    by_critic: ClassVar[bool] = False
    """Whether it reads a critic, which a policy's file holds if it is a `CriticEnsemble`."""

    def check(self, policy: SteeredPolicy) -> None:
        """Raises InputError if it cannot guide a policy."""

    def conditioned(self, policy: SteeredPolicy, condition: Tensor) -> object:
        """What the chain's model is given. Args: condition: of rows, `[.., M, C]`."""
        return policy.prepared(condition)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return part_form(self)

    @staticmethod
    def from_dict(form: Mapping[str, Any]) -> Guidance:
        """What `to_dict` described. Args: form: `kind` and fields."""
        return part_of(form, Guidance, "guidance")


@dataclass(frozen=True)
class ClassifierFree(Guidance):
    """Makes each prediction (1 + w) y(x, c) - w y(x): more of what the condition changes (arXiv 2207.12598).

    Args:
        weight: w, at least -1; 0 is the policy as it is, -1 one that sees nothing.

    Raises:
        InputError: the weight is below -1 or not finite; the policy was not trained with a `condition_drop`.

    Example:
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), condition_drop=0.1)
        >>> policy.with_guidance(ClassifierFree(2.0))(Clinic(8).reset())["action"].shape
        torch.Size([8])
    """

    weight: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", check.number(self.weight, "weight", least=-1))

    def check(self, policy: SteeredPolicy) -> None:
        if policy.null is None:
            raise InputError(
                "guidance without a classifier needs what the policy predicts without a condition; make and train it "
                "with condition_drop above 0"
            )

    def conditioned(self, policy: SteeredPolicy, condition: Tensor) -> Guided:
        given, null = policy.prepared(condition), policy.prepared(policy.nothing(condition))

        def predicted(x: Tensor, t: Any) -> Tensor:
            return classifier_free(policy.denoise(x, t, given), policy.denoise(x, t, null), self.weight)

        return Guided(predicted)


@dataclass(frozen=True, eq=False)
class _ByCritic(Guidance):
    """What reads a critic of `[.., M, inputs]` that gives `[K, .., M, outputs]`, a `CriticEnsemble`: the least counts.

    It reads what the policy is conditioned on and, of pairs, beside it `head.features` of the action, as
    `action_critic` of `diffpolicy.objectives` does.
    """

    by_critic: ClassVar[bool] = True
    critic: nn.Module

    def __post_init__(self) -> None:
        if isinstance(self.critic, Mapping):  # as a file has it; its parameters are among the policy's
            object.__setattr__(self, "critic", CriticEnsemble.from_dict(self.critic))

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without the critic's parameters, which are saved with the policy's.

        Raises:
            InputError: the critic is a module of another kind.
        """
        if type(self.critic) is not CriticEnsemble:
            raise InputError(
                f"a {type(self).__name__} reads a {type(self.critic).__name__}, which a policy's file does not hold, "
                "as it does a CriticEnsemble; save policy.with_guidance(None), and guide what is loaded"
            )
        others = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "critic"}
        return {"kind": file_name(type(self)), "critic": self.critic.to_dict(), **others}

    def values(self, policy: SteeredPolicy, condition: Tensor, action: Tensor) -> Tensor:
        """Q(s, a) of rows, `[.., M]`. Args: condition: `[.., M, C]`. action: `[.., M, *event]`."""
        features = policy.head.features(action).to(condition)
        return least(self.critic(torch.cat([condition, features], -1))).squeeze(-1)

    def inputs(self, policy: SteeredPolicy) -> tuple[int, int]:
        """How many numbers of a row the critic reads and gives."""
        return policy.condition_dim + policy.head.feature_width, 1

    def check(self, policy: SteeredPolicy) -> None:
        if policy.embeds:
            raise InputError(
                f"a {type(self).__name__}'s critic reads what is observed, and embed of {type(policy).__name__} makes "
                "something else of it"
            )
        reads, gives = self.inputs(policy)
        lead = (2,) if policy.agents is None else (policy.agents, 2)
        try:
            with torch.no_grad():
                value = self.critic(torch.zeros(*lead, reads, dtype=policy.dtype, device=policy.device))
        except RuntimeError as error:
            raise InputError(f"the critic cannot read {reads} numbers of a row: {str(error).splitlines()[0]}") from None
        if value.shape[1:] != (*lead, gives):
            wanted = ", ".join(map(str, ("K", *lead, gives)))
            raise InputError(f"the critic must give values [{wanted}], got {list(value.shape)}")


@dataclass(frozen=True, eq=False)
class BestOf(_ByCritic):
    """Takes, of several actions drawn for a row, the one that a critic likes best, whatever the action is.

    Args:
        critic: reads what is observed and the action's features, and gives Q(s, a), `[K, .., M, 1]`; the least of K
            counts. With `reads="state"` it reads what is observed and gives that of all J joint choices.
        draws: how many, at least 1.
        reads: `pair` or `state`.

    Raises:
        InputError: no draw, or another word; the critic does not fit the policy, or choices cannot be enumerated.

    Acting without chance (`set_exploration_type(DETERMINISTIC)`) has one action alone, and takes that.

    Example:
        >>> critic = CriticEnsemble(3, 3)  # of a discrete soft actor-critic
        >>> policy = DiffusionPolicy.from_specs(Clinic(1)).with_guidance(BestOf(critic, draws=50, reads="state"))
        >>> state = policy(Clinic(8).reset())
        >>> torch.equal(state["action"], critic(state["observation"]).amin(0).argmax(-1))
        True
    """

    draws: int = 8
    reads: Literal["pair", "state"] = "pair"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "draws", check.integer(self.draws, "draws", least=1, most=_limits.DRAWN))
        check.choice(self.reads, "reads", words=("pair", "state"))

    def inputs(self, policy: SteeredPolicy) -> tuple[int, int]:
        return (policy.condition_dim, policy.head.joint) if self.reads == "state" else super().inputs(policy)

    def values(self, policy: SteeredPolicy, condition: Tensor, action: Tensor) -> Tensor:
        if self.reads == "pair":
            return super().values(policy, condition, action)
        index = policy.head.joint_index(action).clamp_min(0)
        return least(self.critic(condition)).gather(-1, index.unsqueeze(-1)).squeeze(-1)

    def best(self, policy: SteeredPolicy, condition: Tensor, action: Tensor) -> Tensor:
        """Which draw of each row is the best, int64 `[.., M]`.

        Args:
            condition: of each row K times in a row, `[.., M K, C]`. action: `[.., M K, *event]`.
        """
        found = self.values(policy, condition, action)
        refuse_unsure(found, condition, self.critic, "the critic's value")
        best: Tensor = found.unflatten(-1, (-1, self.draws)).argmax(-1)
        return best


@dataclass(frozen=True, eq=False)
class QGradient(_ByCritic):
    """Adds the gradient of scale times Q(s, a) to the score of each step, a being the action of the predicted x_0.

    With exact predictions and Q linear in x_0 chains of many steps end in the law of x_0 times exp(scale Q), else near
    it (Janner et al. 2022, arXiv 2205.09991; Lu et al. 2023, arXiv 2304.12824).

    Args:
        critic: reads what is observed and the action's features, and gives Q(s, a), `[K, .., M, 1]`; the least of K
            counts. scale: of the gradient.

    Raises:
        InputError: the critic does not fit the policy, or the action is no vector, or has a mask, which is not heeded.

    Example:
        >>> head = BoundedHead(low=(-1.0,), high=(1.0,))
        >>> policy = DiffusionPolicy(choices=2, observation_dim=3, head=head)
        >>> policy.with_guidance(QGradient(CriticEnsemble(3 + 1, 1), scale=0.5)).guidance.scale
        0.5
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", check.number(self.scale, "scale"))

    def check(self, policy: SteeredPolicy) -> None:
        head = policy.head
        if policy.process.discrete or (head.x0_is == "parameters" and head.expectation != "pathwise"):
            raise InputError(f"a QGradient needs vectors, and a {type(head).__name__} makes choices; use BestOf")
        if policy.reading.masked:
            raise InputError("a QGradient respects no mask, and the policy reads one; use BestOf")
        super().check(policy)

    def conditioned(self, policy: SteeredPolicy, condition: Tensor) -> Guided:
        with _differentiable():
            condition = _usable(condition)
            prepared = policy.prepared(condition)

        def predicted(x: Tensor, t: Any) -> Tensor:
            learns = torch.is_grad_enabled()
            with _differentiable(), torch.enable_grad():
                x, t = _usable(x), _usable(t)
                state = x if learns and x.requires_grad else x.detach().requires_grad_()
                given = policy.denoise(state, t, prepared)
                x0 = policy.process.convert(given, state, t, given=policy.prediction, wanted="x0")
                row = x0.flatten(-2) if policy.items_read else x0
                action = policy.head.mode(policy.head.law(policy.decode(row)))
                total = self.values(policy, condition, action).sum()
                (gradient,) = torch.autograd.grad(total, state, create_graph=learns)
            value = given if learns else given.detach()
            return along_gradient(value, gradient, x, t, policy.process, prediction=policy.prediction, scale=self.scale)

        return Guided(predicted)


@contextmanager
def _differentiable() -> Iterator[None]:
    """Leaves `torch.inference_mode`, in which no gradient can be asked for, without turning gradients on."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def _usable(x: Any) -> Any:
    """A copy of what inference mode made, which no gradient goes through, or x. Args: x: of inputs."""
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x
