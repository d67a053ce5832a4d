"""What a policy's decision takes and gives, beside what is observed: draws, a beginning, the action."""

from __future__ import annotations

import math

import torch

from diffpolicy._decision_input import DecisionInput
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.heads import CategoricalHead, CompositeHead, Head, JointHead
from diffpolicy.policies.heads.slots import SlotsHead
from diffpolicy.policies.policy import Policy

DRAWS: dict[str, tuple[str, tuple[float, float] | None]] = {
    "uniform": ("independent draws of U[0, 1)", (0.0, 1.0)),
    "normal": ("independent draws of N(0, 1), of the action", None),
}


def drawn_inputs(head: Head, lead: tuple[int | str, ...]) -> list[DecisionInput]:
    """What a head draws an action with, as inputs: one a law. Args: lead: shape of the rows."""
    if isinstance(head, CompositeHead):
        counts = {name: sum(n for law, n in head.drawn if law == name) for name, _ in head.drawn}
        shapes: dict[str, tuple[int, ...]] = {name: (count,) for name, count in counts.items()}
    else:
        shapes = dict([head.draw_input] if head.draw_input is not None else [])
    return [DecisionInput(name, (*lead, *shape), "float32", *DRAWS[name]) for name, shape in shapes.items()]


def choices_of(head: Head) -> list[int]:
    """How many choices each part of an action has, in the order of a mask; [] where it is of several keys, or numbers.

    A mask's width is their sum, which does not tell them to whom the policy is not at hand.
    """
    if isinstance(head, JointHead):
        return choices_of(head.each) * head.count
    if isinstance(head, SlotsHead):
        return list(head.nvec)
    return [head.choices] if isinstance(head, CategoricalHead) else []


def start_input(policy: Policy, lead: tuple[int | str, ...]) -> DecisionInput:
    """An x_0 to begin from, as an input, or where it is one an action."""
    head, meaning = policy.head, "what the chain begins from"
    if head.x0_is == "parameters":
        return DecisionInput("start", (*lead, policy.choices), "float32", f"{meaning}, an x_0")
    dtype = "float32" if head.written_as is None else str(head.written_as).removeprefix("torch.")
    between = (0, 2) if dtype == "int64" else None
    return DecisionInput("start", (*lead, *head.event), dtype, f"{meaning}, an action", between)


def noise_input(policy: DiffusionPolicy, lead: tuple[int | str, ...]) -> DecisionInput:
    """What a chain draws, as an input: numbers of N(0, 1), or of U[0, 1) where its states are tokens."""
    if not policy.process.discrete:
        return DecisionInput("noise", (policy.draws, *lead, policy.choices), "float32", "independent draws of N(0, 1)")
    shape = (policy.draws, *lead, policy.head.slots)
    return DecisionInput("uniform", shape, "float32", "independent draws of U[0, 1), of the chain's tokens", (0.0, 1.0))


def action_output(policy: Policy, lead: tuple[int | str, ...]) -> DecisionInput:
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
