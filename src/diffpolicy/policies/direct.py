"""Policies without a chain: a law straight from an MLP's outputs, and the greedy choice over action values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, exploration_type
from typing_extensions import Unpack

from diffpolicy import _validate as check
from diffpolicy._deprecated import keep_old_names
from diffpolicy.errors import InputError
from diffpolicy.networks.dense import MLP
from diffpolicy.networks.layout import greatest
from diffpolicy.policies.draws import generator_on
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.policies.masks import masked_value
from diffpolicy.policies.options import ChoiceOptions, FeedforwardOptions, GreedyValueOptions
from diffpolicy.policies.policy import Policy

Forward = TypeVar("Forward", bound="FeedforwardPolicy")
Greedy = TypeVar("Greedy", bound="GreedyValuePolicy")


class FeedforwardPolicy(Policy, formerly="CategoricalPolicy"):
    """A policy without a chain, the control: MLP(observation) gives the parameters of any head's law.

    With a categorical head the actor of discrete SAC (arXiv 1910.07207), softmax(MLP(observation)); with a bounded one
    that of soft actor-critic (arXiv 1801.01290).

    Args:
        hidden: widths of the MLP's hidden layers.
        act: its activation, `relu`, `mish`, `tanh` or `silu`.
        others: of `Policy`.

    Example:
        >>> policy = FeedforwardPolicy.from_specs(Clinic(1), hidden=[64], head="sample")
        >>> state = policy(Clinic(8).reset())
        >>> state["action"].shape, policy.get_dist(state).log_prob(state["action"]).shape
        (torch.Size([8]), torch.Size([8]))
    """

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (20, 20),
        act: str = "relu",
        **others: Unpack[ChoiceOptions],
    ) -> None:
        super().__init__(**others)
        self.hidden, self.act = list(hidden), act
        self.network = MLP(self.condition_dim, self.choices, hidden, act, self.agents, self.generator)

    @classmethod
    def from_specs(cls: type[Forward], env: EnvBase, **options: Unpack[FeedforwardOptions]) -> Forward:
        """A policy whose widths and keys are read off an environment's specs; see `Policy.from_specs`.

        Args:
            env: what is decided in. options: of `Policy.from_specs`, and hidden, act of this class.
        """
        return cls._from_specs(env, options)

    def output(self, condition: Tensor, latent: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        return self.network(condition)  # type: ignore[no-any-return]

    def config(self) -> dict[str, Any]:
        return {**super().config(), "hidden": self.hidden, "act": self.act, "head": self.head.to_dict()}


class GreedyValuePolicy(Policy):
    """Takes the choice of the greatest action value MLP(observation); epsilon-greedy while training.

    The policy of deep Q-learning (Mnih et al. 2015, doi:10.1038/nature14236).

    Args:
        hidden: widths of the MLP's hidden layers.
        act: its activation, `relu`, `mish`, `tanh` or `silu`.
        epsilon: rate of uniform choices, from 0 to 1, in `train` mode, and under TorchRL's
            `set_exploration_type(RANDOM)`.
        others: of `Policy`.

    Raises:
        InputError: the action is not categorical, or `epsilon` not from 0 to 1; it has no law of actions, so asking for
            one is refused too.

    Example:
        >>> policy = GreedyValuePolicy.from_specs(Clinic(1)).eval()
        >>> state = Clinic(8).reset()
        >>> torch.equal(policy(state)["action"], policy.network(state["observation"]).argmax(-1))
        True
    """

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (20, 20),
        act: str = "relu",
        epsilon: float = 0.01,
        **others: Unpack[ChoiceOptions],
    ) -> None:
        super().__init__(**others)
        if not isinstance(self.head, CategoricalHead):
            raise InputError(f"action values need a categorical action, and this head is a {type(self.head).__name__}")
        self.hidden, self.act = list(hidden), act
        self.epsilon = check.number(epsilon, "epsilon", least=0, most=1)
        self.network = MLP(self.condition_dim, self.choices, hidden, act, self.agents, self.generator)

    @classmethod
    def from_specs(cls: type[Greedy], env: EnvBase, **options: Unpack[GreedyValueOptions]) -> Greedy:
        """A policy whose widths and keys are read off an environment's specs; see `Policy.from_specs`.

        Args:
            env: what is decided in. options: of `Policy.from_specs`, and hidden, act, epsilon of this class.
        """
        return cls._from_specs(env, options)

    def output(self, condition: Tensor, latent: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Action values, `[.., M, A]`."""
        return self.network(condition)  # type: ignore[no-any-return]

    def choose(self, logits: Tensor) -> Tensor:
        best = greatest(logits)
        explores = self.training or exploration_type() is ExplorationType.RANDOM
        assert isinstance(self.head, CategoricalHead)
        if not explores:
            return self.head.written(best)
        allowed = logits > masked_value(logits.dtype)
        # a narrow type would round a rank up to the number of choices
        wide = torch.promote_types(logits.dtype, torch.float32)
        generator = generator_on(self.generator, logits.device)
        u = torch.rand(2, *best.shape, generator=generator, device=generator.device).to(logits.device, wide)
        rank = (u[1].unsqueeze(-1) * allowed.sum(-1, keepdim=True)).floor()
        drawn = ((allowed.cumsum(-1) - 1 == rank) & allowed).byte().argmax(-1)
        return self.head.written(torch.where(u[0] < self.epsilon, drawn, best))

    def check_law(self) -> None:
        raise InputError("a GreedyValuePolicy has action values, and no law of actions")

    @property
    def draws_choice(self) -> bool:
        return False

    def choose_at(self, logits: Tensor, uniform: Tensor | None) -> Tensor:
        return self.head.mode(logits)

    def config(self) -> dict[str, Any]:
        return {
            **super().config(),
            "hidden": self.hidden,
            "act": self.act,
            "epsilon": self.epsilon,
            "head": self.head.to_dict(),
        }


keep_old_names(__name__)
