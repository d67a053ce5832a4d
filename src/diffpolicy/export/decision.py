"""`Decision`: what a policy decides about rows, as a pure function of tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.heads import CompositeHead, Head
from diffpolicy.policies.masks import NO_CHOICE
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.priors import ActionMemory
from diffpolicy.policies.protocols import Freezes
from diffpolicy.policies.pure_decision import DecidesPurely, DecisionInput, PureDecision, in_eval_mode
from diffpolicy.policies.saving import SavedPolicy

DRAWS: dict[str, tuple[str, tuple[float, float] | None]] = {
    "uniform": ("independent draws of U[0, 1)", (0.0, 1.0)),
    "normal": ("independent draws of N(0, 1), of the action", None),
}


class Decision(PureDecision):
    """A policy's choice for rows; all that it draws and remembers goes in, and what it will remember comes out.

    Rows are `[M, ...]`, or `[G, M, ...]` for a policy with networks of its own for each of G agents (see
    `Policy.for_agent`). Which inputs there are depends on the policy: `inputs` tells.

    Args:
        policy: any `Policy`; it is not changed, and the decision acts as it does in `eval` mode.

    Raises:
        InputError: a critic guides it, or its chain begins from what is given, which have no exported form.

    Example:
        >>> decision = Decision(DiffusionPolicy(choices=3, observation_dim=5, prior=ActionMemory()))
        >>> [i.name for i in decision.inputs]
        ['observation', 'latent', 'noise', 'uniform']
        >>> generator = torch.Generator().manual_seed(0)
        >>> action, logits, next_latent = decision(*(i.random(4, generator) for i in decision.inputs))
        >>> action.shape, logits.shape, next_latent.shape
        (torch.Size([4]), torch.Size([4, 3]), torch.Size([4, 3]))
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        if isinstance(policy, DiffusionPolicy) and policy.guidance is not None and policy.guidance.by_critic:
            raise InputError(f"a policy that a {type(policy.guidance).__name__} guides has no exported form")
        if isinstance(policy, DiffusionPolicy) and policy.level is not None:
            raise InputError(
                f"a chain that begins at level {policy.level} has no exported form; with_start(None) has one"
            )
        self.policy = in_eval_mode(policy)
        lead: tuple[int | str, ...] = ("rows",) if policy.agents is None else (policy.agents, "rows")
        wide = (*lead, policy.choices)
        inputs = [DecisionInput("observation", (*lead, policy.observation_dim), "float32", "what is observed, raw")]
        chain = policy if isinstance(policy, DiffusionPolicy) else None
        self.remembers = chain is not None and isinstance(chain.prior, ActionMemory)
        if self.remembers:
            inputs.append(DecisionInput("latent", wide, "float32", "what is remembered of the last decision"))
        self.head = policy.head
        self.noise = None if chain is None or not chain.draws else _noise(chain, lead)
        if self.noise is not None:
            inputs.append(self.noise)
        self.drawn = [] if not policy.draws_choice else _drawn(policy.head, lead)
        inputs += self.drawn
        if policy.reading.masked:
            allowed = (*lead, policy.head.mask_width)
            inputs.append(DecisionInput("mask", allowed, "bool", "which choices are allowed"))
        self.inputs = tuple(inputs)
        outputs = [_action(policy, lead)]
        if policy.head.x0_is == "parameters":
            meaning = "of the choices, or other parameters of the action's law"
            outputs.append(DecisionInput("logits", wide, "float32", meaning))
        if self.remembers:
            outputs.append(DecisionInput("next_latent", wide, "float32", "what to remember, the next time's latent"))
        self.outputs = tuple(outputs)

    def frozen(self) -> AbstractContextManager[None]:
        denoiser = self.policy.denoiser if isinstance(self.policy, DiffusionPolicy) else None
        return denoiser.frozen() if isinstance(denoiser, Freezes) else nullcontext()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Decides.

        Args:
            tensors: the inputs, in their order.

        Returns:
            The outputs, in their order: actions, logits where x_0 is a law's parameters, and where the policy remembers
            the next latents.
        """
        given = self.named(tensors)
        policy, mask = self.policy, self._mask(given)
        condition = policy.condition(given["observation"])
        noise = None if self.noise is None else given[self.noise.name]
        x0 = policy.end(condition, given.get("latent"), noise, mask)
        law = policy.head.law(policy.decode(x0, mask), mask)
        results = [self.head.refuse(policy.choose_at(law, self._draws(given)), mask)]
        if self.head.x0_is == "parameters":
            results.append(law)
        if self.remembers:
            results.append(policy.prior.follow(given["latent"], x0, self.head))
        return tuple(results)

    def _mask(self, given: Mapping[str, Tensor]) -> Tensor | None:
        mask = given.get("mask")
        return None if mask is None else self.head.read_mask(mask)

    def _draws(self, given: Mapping[str, Tensor]) -> Tensor | None:
        """What the head draws an action with. Args: given: inputs by name."""
        if not isinstance(self.head, CompositeHead) or not self.drawn:
            return given[self.drawn[0].name] if self.drawn else None
        taken, parts = dict.fromkeys(DRAWS, 0), []
        for name, count in self.head.drawn:
            parts.append(given[name][..., taken[name] : taken[name] + count])
            taken[name] += count
        return torch.cat(parts, -1)

    def allows(self, action: Tensor, inputs: Sequence[Tensor], outputs: Sequence[Tensor], tolerance: float) -> Tensor:
        """A choice is right if a draw that is moved by a rounding error, or a logit that is, would give it."""
        if self.head.x0_is == "action":
            return self._is_end(action, inputs, outputs[0], tolerance)
        given, logits = self.named(inputs), outputs[1]
        draws, mask = self._draws(given), self._mask(given)
        if self.head.event:
            return self._near(action, logits, draws, mask, tolerance)
        if draws is None:
            best, chosen = logits.amax(-1), logits.gather(-1, action.clamp_min(0).unsqueeze(-1)).squeeze(-1)
            near = chosen >= best - tolerance * best.abs().clamp_min(1)
        else:
            shifts = (-tolerance, 0.0, tolerance)
            near = torch.stack([action == self.policy.choose_at(logits, draws + shift) for shift in shifts]).any(0)
        return near if mask is None else torch.where(mask.any(-1), near & (action >= 0), action == NO_CHOICE)

    def _is_end(self, action: Tensor, inputs: Sequence[Tensor], ours: Tensor, tolerance: float) -> Tensor:
        """Whether actions are the ends of chains but for rounding, bool of the rows' shape; a token may turn by it."""
        if action.is_floating_point():
            near: Tensor = (action - ours).abs() <= tolerance * ours.abs().clamp_min(1)
            return near.all(-1) if self.head.event else near
        right = action == ours
        for shift in (-tolerance, tolerance):
            moved = [x + shift if spec is self.noise else x for spec, x in zip(self.inputs, inputs, strict=True)]
            with torch.no_grad():
                right = right | (action == self(*moved)[0])
        parts = len(self.head.event)
        return right.flatten(-parts).all(-1) if parts else right

    def _near(
        self, action: Tensor, logits: Tensor, draws: Tensor | None, mask: Tensor | None, tolerance: float
    ) -> Tensor:
        """Whether each part of actions of several parts is right but for rounding, bool of the rows' shape."""
        shifts = (0.0,) if draws is None else (0.0, -tolerance, tolerance)
        tried = [
            self.head.refuse(self.policy.choose_at(logits, None if draws is None else draws + shift), mask)
            for shift in shifts
        ]
        right = torch.stack([action == each for each in tried]).any(0)
        if action.is_floating_point():
            right = right | ((action - tried[0]).abs() <= tolerance * tried[0].abs().clamp_min(1))
        return right.all(-1)


def _drawn(head: Head, lead: tuple[int | str, ...]) -> list[DecisionInput]:
    """What a head draws an action with, as inputs: one a law. Args: lead: shape of the rows."""
    if isinstance(head, CompositeHead):
        counts = {name: sum(n for law, n in head.drawn if law == name) for name, _ in head.drawn}
        shapes: dict[str, tuple[int, ...]] = {name: (count,) for name, count in counts.items()}
    else:
        shapes = dict([head.draw_input] if head.draw_input is not None else [])
    return [DecisionInput(name, (*lead, *shape), "float32", *DRAWS[name]) for name, shape in shapes.items()]


def _noise(policy: DiffusionPolicy, lead: tuple[int | str, ...]) -> DecisionInput:
    """What a chain draws, as an input: numbers of N(0, 1), or of U[0, 1) where its states are tokens."""
    if not policy.process.discrete:
        return DecisionInput("noise", (policy.draws, *lead, policy.choices), "float32", "independent draws of N(0, 1)")
    shape = (policy.draws, *lead, policy.head.slots)
    return DecisionInput("uniform", shape, "float32", "independent draws of U[0, 1), of the chain's tokens", (0.0, 1.0))


def _action(policy: Policy, lead: tuple[int | str, ...]) -> DecisionInput:
    """What is decided, as an output."""
    written, masked = policy.head.written_as, policy.reading.masked
    dtype = "float32" if written is None else str(written).removeprefix("torch.")
    meaning = "the numbers of the action" if written is None else "the choice"
    if isinstance(policy.head, CompositeHead):
        meaning = f"numbers of several actions, side by side: {_columns(policy)}"
    if written == torch.bool:  # which has no -1
        meaning = "the choice, true where it is made" + ("; any where the mask allows none" if masked else "")
    elif masked:
        meaning += "; -1 where the mask allows none"
    return DecisionInput("action", (*lead, *policy.head.event), dtype, meaning)


def _columns(policy: Policy) -> str:
    """Which columns of the numbers of several actions are of which key."""
    assert isinstance(policy.head, CompositeHead)
    told, at = [], 0
    for key, part in zip(policy.action_keys, policy.head.parts, strict=True):
        end = at + math.prod(part.event)
        name = key if isinstance(key, str) else key[-1]
        told.append(f"{name} {at}" if end == at + 1 else f"{name} {at} to {end - 1}")
        at = end
    return ", ".join(told)


def decision_of(policy: SavedPolicy) -> PureDecision:
    """The policy's own decision, where it has one (a method `decision()`), or that about rows of observations."""
    return policy.decision() if isinstance(policy, DecidesPurely) else Decision(policy)
