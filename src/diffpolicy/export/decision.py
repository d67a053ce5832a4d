"""`Decision`: what a policy decides about rows, as a pure function of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.export.signature import action_output, drawn_inputs, noise_input, start_input
from diffpolicy.policies.decided import Decided
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.guidance import BestOf, QGradient
from diffpolicy.policies.heads import CompositeHead
from diffpolicy.policies.masks import NO_CHOICE
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.priors import ActionMemory
from diffpolicy.policies.protocols import frozen
from diffpolicy.policies.pure_decision import (
    DecidesPurely,
    DecisionInput,
    PureDecision,
    finite_rows,
    in_eval_mode,
    refused,
)
from diffpolicy.policies.saving import SavedPolicy

_BELOW_ONE = 1 - 1e-6
"""The most that a draw of U[0, 1) counts as: at 1, which a draw in double precision may round to, no choice is left."""


class Decision(PureDecision):
    """A policy's choice for rows; all that it draws and remembers goes in, and what it will remember comes out.

    Rows are `[M, ...]`, or `[G, M, ...]` for a policy with networks of its own for each of G agents (see
    `Policy.for_agent`). Which inputs there are depends on the policy: `inputs` tells.

    Args:
        policy: any `Policy`; it is not changed, and the decision acts as it does in `eval` mode.

    Raises:
        InputError: the gradient of a critic guides it, which has no exported form.

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
        chain = policy if isinstance(policy, DiffusionPolicy) else None
        if chain is not None and isinstance(chain.guidance, QGradient):
            raise InputError(
                "a policy that a QGradient guides has no exported form: a graph takes no gradient; BestOf has"
            )
        self.policy = in_eval_mode(policy)
        lead: tuple[int | str, ...] = ("rows",) if policy.agents is None else (policy.agents, "rows")
        self.lead = lead
        wide = (*lead, policy.choices)
        inputs = [DecisionInput("observation", (*lead, policy.observation_dim), "float32", "what is observed, raw")]
        self.remembers = chain is not None and isinstance(chain.prior, ActionMemory)
        if self.remembers:
            inputs.append(DecisionInput("latent", wide, "float32", "what is remembered of the last decision"))
        self.head = policy.head
        self.starts = chain is not None and chain.level is not None
        if self.starts:
            inputs.append(start_input(policy, lead))
        self.best = chain.guidance if chain is not None and isinstance(chain.guidance, BestOf) else None
        each = lead if self.best is None else (*lead, self.best.draws)
        self.noise = None if chain is None or not chain.draws else noise_input(chain, each)
        if self.noise is not None:
            inputs.append(self.noise)
        self.drawn = [] if not policy.draws_choice else drawn_inputs(policy.head, each)
        inputs += self.drawn
        if policy.reading.masked:
            allowed = (*lead, policy.head.mask_width)
            inputs.append(DecisionInput("mask", allowed, "bool", "which choices are allowed"))
        self.inputs = tuple(inputs)
        outputs = [action_output(policy, lead)]
        if policy.head.x0_is == "parameters":
            meaning = "of the choices, or other parameters of the action's law"
            outputs.append(DecisionInput("logits", wide, "float32", meaning))
        if self.remembers:
            outputs.append(DecisionInput("next_latent", wide, "float32", "what to remember, the next time's latent"))
        self.outputs = tuple(outputs)

    def frozen(self) -> AbstractContextManager[None]:
        denoiser = self.policy.denoiser if isinstance(self.policy, DiffusionPolicy) else None
        return frozen(denoiser)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Decides.

        Args:
            tensors: the inputs, in their order.

        Returns:
            The outputs in their order, actions, logits where x_0 is a law's parameters, and where the policy remembers
            the next latents. A row that holds a number that is not finite has no action: comparisons with nan would
            choose one that may be forbidden.
        """
        given = self.named(tensors)
        made, condition = self._all(given)
        if self.best is not None:
            assert isinstance(self.policy, DiffusionPolicy)
            made = self._one(made, self.best.best(self.policy, condition, made.action))
        action, *others = self._told(made, self._latent(given), self._mask(given))
        return refused(action, finite_rows(self.inputs, tensors, self.lead)), *others

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        given = super().named(tensors)
        return {name: x.clamp(0.0, _BELOW_ONE) if name == "uniform" else x for name, x in given.items()}

    def nearest(
        self, theirs: Sequence[Tensor], inputs: Sequence[Tensor], ours: Sequence[Tensor], tolerance: float
    ) -> Sequence[Tensor]:
        """Where a critic chooses, of the draws that it likes as well as the best the one nearest to an export's."""
        if self.best is None:
            return ours
        assert isinstance(self.policy, DiffusionPolicy)
        given, count = self.named(inputs), self.best.draws
        with torch.no_grad():
            made, condition = self._all(given)
            values = self.best.values(self.policy, condition, made.action).unflatten(-1, (-1, count))
            latent, mask = self._repeated(self._latent(given)), self._repeated(self._mask(given))
            gaps = []
            for each, b in zip(self._told(made, latent, mask), theirs, strict=True):
                drawn = each.unflatten(values.ndim - 2, (-1, count)).to(values)
                gap = (drawn - b.to(values).unsqueeze(values.ndim - 1)).abs() / drawn.abs().clamp_min(1)
                gaps.append(gap.reshape(*values.shape, -1).amax(-1))
            far = torch.stack(gaps).amax(0)
            slack = tolerance * values.abs().amax(-1, keepdim=True).clamp_min(1)
            tied = values >= values.amax(-1, keepdim=True) - slack
            nearest = torch.where(tied, far, torch.inf).argmin(-1)
            return self._told(self._one(made, nearest), self._latent(given), self._mask(given))

    def _told(self, made: Decided, latent: Tensor | None, mask: Tensor | None) -> tuple[Tensor, ...]:
        """The outputs, in their order. Args: latent, mask: of the rows that were made."""
        results = [self.head.refuse(made.action, mask)]
        if self.head.x0_is == "parameters":
            results.append(made.law)
        if self.remembers:
            memory = self.policy.prior
            assert isinstance(memory, ActionMemory)
            assert latent is not None
            results.append(memory.follow(latent, made.x0, self.head))
        return tuple(results)

    def _all(self, given: Mapping[str, Tensor]) -> tuple[Decided, Tensor]:
        """What passes make of rows, K of each where a critic chooses, and what each pass is conditioned on.

        Args:
            given: the inputs by name.
        """
        condition, latent, mask = self.policy.condition(given["observation"]), self._latent(given), self._mask(given)
        noise, draws = None if self.noise is None else given[self.noise.name], self._draws(given)
        if self.best is not None:
            rows = condition.ndim - 2
            noise = None if noise is None else noise.flatten(rows + 1, rows + 2)
            draws = None if draws is None else draws.flatten(rows, rows + 1)
            condition = condition.repeat_interleave(self.best.draws, -2)
            latent, mask = self._repeated(latent), self._repeated(mask)
        return self._passed(condition, latent, noise, draws, mask), condition

    def _repeated(self, x: Tensor | None) -> Tensor | None:
        """Each row as often as the critic has draws to choose from. Args: x: `[.., M, *]`."""
        assert self.best is not None
        return None if x is None else x.repeat_interleave(self.best.draws, -2)

    def _one(self, made: Decided, index: Tensor) -> Decided:
        assert self.best is not None
        return made.picked(index, self.best.draws, len(self.head.event))

    def _passed(
        self, condition: Tensor, latent: Tensor | None, noise: Tensor | None, draws: Tensor | None, mask: Tensor | None
    ) -> Decided:
        """What one pass makes of rows."""
        x0 = self.policy.end(condition, latent, noise, mask)
        law = self.head.law(self.policy.decode(x0, mask), mask)
        return Decided(noise, x0, law, self.policy.choose_at(law, draws))

    def _mask(self, given: Mapping[str, Tensor]) -> Tensor | None:
        mask = given.get("mask")
        return None if mask is None else self.head.read_mask(mask)

    def _latent(self, given: Mapping[str, Tensor]) -> Tensor | None:
        """Where chains begin, if not at draws. Args: given: inputs by name."""
        if not self.starts:
            return given.get("latent")
        return self.head.encode(given["start"]) if self.head.x0_is == "action" else given["start"]

    def _draws(self, given: Mapping[str, Tensor]) -> Tensor | None:
        """What the head draws an action with. Args: given: inputs by name."""
        if not isinstance(self.head, CompositeHead) or not self.drawn:
            return given[self.drawn[0].name] if self.drawn else None
        taken, parts = {x.name: 0 for x in self.drawn}, []
        for name, count in self.head.drawn:
            parts.append(given[name][..., taken[name] : taken[name] + count])
            taken[name] += count
        return torch.cat(parts, -1)

    def allows(self, action: Tensor, inputs: Sequence[Tensor], outputs: Sequence[Tensor], tolerance: float) -> Tensor:
        """A choice is right if a draw that is moved by a rounding error, or a logit that is, would give it."""
        if self.head.x0_is == "action" or self.best is not None:
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
        """Whether actions are those of passes but for rounding, bool of the rows' shape; a token may turn by it."""
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


def decision_of(policy: SavedPolicy) -> PureDecision:
    """The policy's own decision, where it has one (a method `decision()`), or that about rows of observations."""
    return policy.decision() if isinstance(policy, DecidesPurely) else Decision(policy)
