"""`MirrorDescentMethod` and its kin: mirror descent on discrete diffusion (RL-D2), and controls without a chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from torch import nn

from diffpolicy import _validate as check
from diffpolicy.methods.action_critic import ActionCriticMethod
from diffpolicy.methods.fields import Rule
from diffpolicy.objectives.mirror_descent import MirrorDescentLoss, OnChainMirrorLoss
from diffpolicy.objectives.reverse_mirror import ReverseMirrorLoss
from diffpolicy.policies.heads import BoundedHead, Head, VectorHead
from diffpolicy.policies.policy import Policy


@dataclass(frozen=True, kw_only=True)
class MirrorDescentMethod(ActionCriticMethod):
    """A chain of tokens goes a step of mirror descent from its slow copy, again and again (RL-D2, arXiv 2509.22963).

    The losses are `MirrorDescentLoss`, `OnChainMirrorLoss` and `ReverseMirrorLoss`.

    Args:
        divergence: `forward`: own actions are learned with softmax weights; `on-chain`: at the states of their chains;
            `reverse`: by clipped ratios of single steps.
        temperature: lambda, the first one where it is found, in units of scaled rewards.
        target_kl: nats that a step may go, by which lambda is found, but for `reverse` below log(samples); None: lambda
            stays.
        clip: of `reverse`: most by which a step's ratio counts, above or below 1.
        refresh: of `reverse`: updates for which the copy that records chains stays as it is.
        others: of `ActionCriticMethod`.

    Raises:
        InputError: a field is out of range or of another kind.

    Example:
        >>> rates = {"actor": 1e-3, "critic": 1e-3, "temperature": 1e-2}
        >>> method = MirrorDescentMethod(learning_rates=rates, steps=3, divergence="on-chain")
        >>> module = method.build(EnvProblem(Clinic, steps=50), environments=8)
        >>> fit(module, episodes=8).episodes, type(module.objective).__name__
        (8, 'OnChainMirrorLoss')
    """

    divergence: Literal["forward", "on-chain", "reverse"] = "forward"
    temperature: float = 1.0
    target_kl: float | None = 0.1
    clip: float = 0.2
    refresh: int = 4
    rules: ClassVar[Mapping[str, Rule]] = {
        **ActionCriticMethod.rules,
        "divergence": partial(check.choice, words=("forward", "on-chain", "reverse")),
        "temperature": partial(check.number, above=0),
        "target_kl": lambda value, key: None if value is None else check.number(value, key, above=0),
        "clip": partial(check.number, above=0, most=0.99),
        "refresh": partial(check.integer, least=1, most=10**6),
    }

    def refuses(self, head: Head) -> str:
        """As its family; and the states of a chain that are learned at are tokens."""
        numbers = isinstance(head, (BoundedHead, VectorHead)) and self.chain and self.divergence != "forward"
        return super().refuses(head) or ("it learns at recorded states of chains of tokens" if numbers else "")

    def make_loss(self, policy: Policy, critic: nn.Module, shared: dict[str, Any]) -> MirrorDescentLoss:
        own: dict[str, Any] = {"temperature": self.temperature, "target_kl": self.target_kl}
        if self.divergence == "reverse":
            return ReverseMirrorLoss(policy, critic, clip=self.clip, refresh=self.refresh, **own, **shared)
        kind = MirrorDescentLoss if self.divergence == "forward" else OnChainMirrorLoss
        return kind(policy, critic, **own, **shared)
