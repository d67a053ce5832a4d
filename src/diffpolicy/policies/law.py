"""`HeadLaw`: a head's law of actions as a `torch.distributions.Distribution`, as TorchRL's losses take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policies.draws import outside_graphs
from diffpolicy.policies.heads.composite import CompositeHead
from diffpolicy.policies.heads.head import Head
from diffpolicy.policies.partial_law import PartialLaw
from diffpolicy.policies.rows import Rows


class HeadLaw(PartialLaw):
    """The law of items' actions, given one chain's draws; it samples from a policy's own generator.

    Where a head's joint choices are enumerated, `probs` and `logits` are those of all of them, `[*, J]`, normalised and
    finite under a mask; where it is pathwise, `rsample` has a gradient.

    Args:
        head: says what the parameters mean. parameters: of its law, `[*, W]`. generator: what samples are drawn from.
        keys: of the actions that it is the law of together, of a `CompositeHead`; () where it is of one action.

    Raises:
        InputError: one action of several is asked about.

    Example:
        >>> law = HeadLaw(CategoricalHead(choices=2), torch.zeros(3, 2), torch.Generator())
        >>> law.entropy()
        tensor([0.6931, 0.6931, 0.6931])
    """

    def __init__(
        self, head: Head, parameters: Tensor, generator: torch.Generator, keys: Sequence[NestedKey] = ()
    ) -> None:
        super().__init__(parameters.shape[:-1], torch.Size(head.event), validate_args=False)
        self.head, self.parameters, self.generator = head, parameters, generator
        self.keys = list(keys)
        self.has_rsample = head.expectation == "pathwise"

    def unknown(self, what: str) -> str:
        return f"the law of a {type(self.head).__name__} has no {what} in closed form; it has mode, sample and log_prob"

    def _drawn(self, sample_shape: Any) -> tuple[Tensor, Tensor | None]:
        """Parameters of so many rows, and what their actions are drawn by."""
        rows = torch.Size([*sample_shape, *self.batch_shape])
        law = self.parameters.expand(*rows, self.parameters.shape[-1])
        draws = outside_graphs(self.head.draws, rows, self.generator)
        return law, None if draws is None else draws.to(law.device)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Actions, `[*sample_shape, *, *event]`; the likeliest where the head takes these."""
        with torch.no_grad():
            return self.head.sample(*self._drawn(sample_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """The same with a gradient, where the head is pathwise."""
        self._check_gradient()
        return self.head.sample(*self._drawn(sample_shape))

    def rsample_and_log_prob(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        """The same and its log-density, of the draw itself: told of the action alone it is lost near a bound.

        TorchRL's losses ask for it, of one action.
        """
        self._check_gradient()
        if self.keys:
            raise InputError(
                f"a loss with a gradient through its action takes one, and the law is of {self.keys} together"
            )
        law, draws = self._drawn(sample_shape)
        if draws is None:
            raise NotImplementedError(f"a {type(self.head).__name__} that takes the argmax gives it no density")
        return self.head.with_log_prob(law, draws.reshape(*law.shape[:-1], *self.event_shape))

    def _check_gradient(self) -> None:
        if not self.has_rsample:
            raise NotImplementedError(f"samples of a {type(self.head).__name__} have no gradient")

    def _together(self, value: Tensor | TensorDictBase) -> Tensor:
        """Actions as the head reads them. Args: of `log_prob`."""
        several = isinstance(self.head, CompositeHead)
        if isinstance(value, TensorDictBase):
            given = value.keys(True)
            if self.keys and all(key in given for key in self.keys):
                assert isinstance(self.head, CompositeHead)
                return self.head.together([value[key] for key in self.keys])
        elif not several or (value.ndim > len(self.batch_shape) and value.shape[-1:] == self.event_shape):
            return value
        what = f"the actions {self.keys} together" if several else "one action"
        told = self.keys or "its key"
        raise InputError(f"the law is of {what}; a loss of TorchRL is told so by set_keys(action={told})")

    def log_prob(self, value: Tensor | TensorDictBase) -> Tensor:
        """Log-probability (density) of actions, `[*]`.

        Args:
            value: `[*, *event]`; -1, no choice, counts as 0. Of several actions also a tensordict of their keys.
        """
        value = self._together(value)
        chosen = self.head.written_as is not None and not value.is_floating_point() and value.dtype != torch.bool
        return self.head.log_prob(self.parameters, value.clamp_min(0) if chosen else value)

    def entropy(self) -> Tensor:
        """Nats, `[*]`, where it has a closed form."""
        try:
            return self.head.entropy(self.parameters)
        except InputError as error:
            raise NotImplementedError(str(error)) from None  # what torch's distributions raise, and losses expect

    def spread(self) -> Tensor:
        """The entropy, in closed form or of one draw with a gradient through it, nats `[*]`."""
        drawn = self.head.expectation != "enumerated"
        draws = outside_graphs(self.head.draws, self.batch_shape, self.generator) if drawn else None
        if draws is None:  # none are read, or the head takes the likeliest, which none of them moves
            draws = self.parameters.new_zeros(*self.batch_shape, *self.event_shape)
        try:
            return self.head.spread(self.parameters, draws.to(self.parameters.device))
        except InputError as error:
            raise NotImplementedError(str(error)) from None

    @property
    def mode(self) -> Tensor:
        """The likeliest actions, `[*, *event]`."""
        return self.head.mode(self.parameters)

    @property
    def deterministic_sample(self) -> Tensor:
        """The mode, by TorchRL's name."""
        return self.mode

    @property
    def logits(self) -> Tensor:
        """Log-probabilities of all joint choices, `[*, J]`."""
        return self.head.joint_log_prob(self.parameters)

    @property
    def probs(self) -> Tensor:
        """Probabilities of all joint choices, `[*, J]`."""
        return self.logits.exp()


def law_of_items(
    head: Head, rows: Rows, law: Tensor, generator: torch.Generator, keys: Sequence[NestedKey] = ()
) -> HeadLaw:
    """The law of all items' actions, `[*]`; items that do not exist have the one of zeros.

    Args:
        head: of the policy. rows: where they are. law: parameters of rows, `[.., M, W]`. generator: of samples.
        keys: of `HeadLaw`.
    """
    parameters = rows.put(law)
    if rows.valid is not None:
        valid = rows.valid.unsqueeze(-1).to(law.device)
        parameters = torch.where(valid, parameters, head.law(torch.zeros_like(parameters)))
    return HeadLaw(head, parameters, generator, keys)


def noise_of_items(noise: Tensor, rows: Rows) -> Tensor:
    """What rows' chains drew, as it is recorded, `[*, draws, W]`. Args: noise: `[draws, .., M, W]`. rows: of items."""
    flat: Tensor = rows.put(noise.movedim(0, -2).flatten(-2))
    result: Tensor = flat.unflatten(-1, (noise.shape[0], noise.shape[-1]))
    return result


def recorded_noise(td: TensorDictBase, key: NestedKey, rows: Rows, draws: int, width: int) -> Tensor | None:
    """What `noise_of_items` recorded, `[draws, .., M, W]`, or None where nothing is.

    Args:
        td: of the items. key: of the draws. rows: of items. draws, width: of one item's chain.

    Raises:
        InputError: they are of another shape.
    """
    recorded = td.get(key, None) if draws else None
    if recorded is None:
        return None
    wanted = (*rows.shape, draws, width)
    if recorded.shape != wanted:
        raise InputError(f"{key!r} must have shape {list(wanted)}, got {list(recorded.shape)}")
    result: Tensor = rows.take(recorded.flatten(-2)).unflatten(-1, (draws, width)).movedim(-2, 0)
    return result
