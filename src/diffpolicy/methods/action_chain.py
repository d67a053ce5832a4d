"""`ActionChainMethod`: what the methods share whose chain ends in the action itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.diffusion.categorical import MaskedProcess, UniformProcess
from diffpolicy.diffusion.processes import FlowProcess
from diffpolicy.diffusion.sampler import Sampler
from diffpolicy.errors import InputError
from diffpolicy.methods.chained import ChainedMethod
from diffpolicy.methods.fields import Rule, mapping
from diffpolicy.policies.heads import CompositeHead, Head, SimplexHead, TokenHead, VectorHead
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.registry import part_of

TOKENS = {"masked": MaskedProcess, "uniform": UniformProcess}
"""Processes of choices by their names."""


def _token_sampler(value: Any, key: str) -> dict[str, Any]:
    """The JSON form of a sampler of tokens."""
    form = mapping(value, key)
    if not part_of(form, Sampler, key).tokens:  # type: ignore[type-abstract]
        raise InputError(f"{key} must go through tokens, and a {form['kind']} goes through numbers")
    return form


@dataclass(frozen=True, kw_only=True)
class ActionChainMethod(ChainedMethod):
    """`ChainedMethod` with x_0 the action itself, which a chain can learn of actions alone; the head follows from them.

    Choices are tokens, noised at `steps` levels: of them `process`, `schedule`, `sampler` and `prediction` mean
    nothing. A vector within bounds is scaled to [-1, 1], and of it `tokens` and `token_sampler` mean nothing.

    Args:
        tokens: how choices are noised: `masked`, they are hidden, or `uniform`, replaced by any.
        token_sampler: of choices, in its JSON form, such as `{"kind": "Ancestral", "order": "confidence"}`.
        process: of vectors: `noise`, a `GaussianProcess` of `schedule`, under `sampler` and `prediction`; or `flow`, a
            `FlowProcess` whose velocity is predicted and followed by Euler's method.
        others: of `ChainedMethod`.
    """

    process: Literal["noise", "flow"] = "noise"
    tokens: Literal["masked", "uniform"] = "masked"
    token_sampler: dict[str, Any] = field(default_factory=lambda: {"kind": "Ancestral"})
    rules: ClassVar[Mapping[str, Rule]] = {
        **ChainedMethod.rules,
        "process": partial(check.choice, words=("noise", "flow")),
        "tokens": partial(check.choice, words=tuple(TOKENS)),
        "token_sampler": _token_sampler,
    }
    through_chain: ClassVar[bool] = False

    def refuses(self, head: Head) -> str:
        """As its family; and its chain ends in choices or in a vector within bounds."""
        ends = "its chain ends in the action itself, choices or a vector within bounds, and not in"
        whats = {SimplexHead: "shares of a whole", CompositeHead: "several keys"}
        what = next((text for kind, text in whats.items() if isinstance(head, kind)), "")
        return super().refuses(head) or (what and f"{ends} {what}")

    def options_in(self, env: EnvBase) -> dict[str, Any]:
        options = self.options()
        kind = Keys.of(env, mask_key=self.mask_key).action.kind
        if self.head is not None or kind not in (*TokenHead.kinds, *VectorHead.kinds):
            return options  # its usual head is refused by its name
        if kind in TokenHead.kinds:
            sampler = part_of(self.token_sampler, Sampler, "token_sampler")  # type: ignore[type-abstract]
            return options | {"schedule": TOKENS[self.tokens](self.steps), "sampler": sampler, "head": TokenHead()}
        if self.process == "noise":
            return options | {"head": VectorHead()}
        flow = {"schedule": FlowProcess(self.steps), "sampler": "flow-euler", "prediction": "velocity"}
        return options | flow | {"head": VectorHead()}
