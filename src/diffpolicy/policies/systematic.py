"""Systematic draws: uniforms that items of like amount share out evenly, so that chance does not pile them up."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs import EnvBase

from diffpolicy.errors import InputError
from diffpolicy.policies.draws import outside_graphs, without_chance
from diffpolicy.policies.guidance import BestOf
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.policies.masks import mark_no_choice, mask_logits
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.steered import SteeredPolicy

CLASSES = 64
"""Classes of amounts, an eighth of an octave wide; they repeat after eight octaves."""
GOLDEN = 0.6180339887498949
"""Steps of the golden ratio's fraction spread any number of points evenly over [0, 1)."""


class SystematicDraws(TensorDictModuleBase):
    """A policy that draws its choices, with systematic instead of independent uniforms; nothing else changes.

    Each single choice has the chances that the policy gives it (systematic sampling, Madow 1949,
    doi:10.1214/aoms/1177729988), but items of like amount no longer meet on one choice by bad luck.

    Args:
        policy: draws one choice for each of an agent's items, actions `[E, B, N]` (`CategoricalHead("sample")`).
        amount_key: what an item adds where it goes, of the action's shape.
        seed_key: a number per environment that all agents know, int64 `[E]` or `[E, 1]`: all of them together spread
            the items of a class, each in its place of a permutation that the number gives, and no message is needed.
            None: each agent spreads its own items in the order of their amounts, by the policy's own generator.
        information: what the environment must show, where it has levels of that; by default what the policy says.

    Raises:
        InputError: the policy draws nothing, has another head, or a critic chooses among its draws.

    Example:
        >>> env = OffloadingEnv(Scenario.load("lad-ts"), batch_size=[2], information="stale")
        >>> policy = FeedforwardPolicy.from_specs(env, head="sample", share_parameters=True)
        >>> draws = SystematicDraws(policy, ("agents", "work_gcycles"), "shared_seed")
        >>> draws(env.reset())["agents", "action"].shape
        torch.Size([2, 20, 50])
    """

    def __init__(
        self,
        policy: Policy,
        amount_key: NestedKey,
        seed_key: NestedKey | None = None,
        *,
        information: str | None = None,
    ) -> None:
        super().__init__()
        if not policy.draws_choice:
            raise InputError("the policy draws no choices, so there is nothing to draw systematically")
        if not isinstance(policy.head, CategoricalHead):
            raise InputError(
                f"systematic draws are of one choice an item, a CategoricalHead's, got a {type(policy.head).__name__}"
            )
        if isinstance(policy, SteeredPolicy) and isinstance(policy.guidance, BestOf):
            raise InputError(
                "a critic chooses among several draws of this policy, and systematic draws are one for each item; "
                "remove the guidance, with_guidance(None)"
            )
        self.policy, self.amount_key, self.seed_key = policy, amount_key, seed_key
        self.information = policy.information if information is None else information
        self.generator = policy.generator
        self.in_keys = [*policy.in_keys, *self._own_keys]
        self.out_keys = list(policy.out_keys)

    @property
    def _own_keys(self) -> list[NestedKey]:
        return [self.amount_key, *([] if self.seed_key is None else [self.seed_key])]

    def uniforms(self, td: TensorDictBase) -> Tensor:
        """U[0, 1) of each item, `[E, B, N]`.

        Raises:
            InputError: an amount or a seed has another shape.
        """
        amount = td[self.amount_key]
        if amount.ndim != 3:
            raise InputError(
                f"systematic draws read {self.amount_key!r} of [environments, agents, items], got {list(amount.shape)}"
            )
        e, b, _ = amount.shape
        if self.seed_key is not None and td[self.seed_key].numel() != e:
            raise InputError(
                f"systematic draws read one {self.seed_key!r} an environment, {e}, got {list(td[self.seed_key].shape)}"
            )
        key = self.policy.valid_key
        valid = torch.ones_like(amount, dtype=torch.bool) if key is None else td[key]
        if self.seed_key is None:
            rank = amount.masked_fill(~valid, torch.inf).argsort(dim=-1, stable=True).argsort(dim=-1)
            drawn: dict[str, Any] = {"generator": self.generator, "device": self.generator.device}
            start = torch.rand(e, b, 1, dtype=torch.float64, **drawn).to(amount.device)
            return torch.remainder(start + rank * GOLDEN, 1)
        size = (8 * amount.double().clamp_min(1e-12).log2()).floor().long() % CLASSES
        mine = torch.nn.functional.one_hot(size, CLASSES) * valid.unsqueeze(-1)
        index = (mine.cumsum(-2) - mine).gather(-1, size.unsqueeze(-1)).squeeze(-1)
        start = torch.stack([_places(seed, b) for seed in td[self.seed_key].flatten().tolist()]).to(amount.device)
        return torch.remainder(start.gather(-1, size) + index * GOLDEN, 1)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        policy = self.policy
        rows = policy.rows(tensordict)
        observation = policy.read_observation(tensordict, rows)
        latent, mask = policy.read_latent(tensordict, rows), policy.read_mask(tensordict, rows)
        condition, still = policy.condition(observation), without_chance()
        noise = policy.no_noise(condition.shape[:-1]) if still else outside_graphs(policy.noise, condition.shape[:-1])
        x0 = policy.output(condition, latent, noise)
        policy.write_latent(tensordict, rows, x0)
        uniform = None if still else rows.take(outside_graphs(self.uniforms, tensordict).unsqueeze(-1)).squeeze(-1)
        choice = policy.choose_at(mask_logits(policy.decode(x0, mask), mask), uniform)
        choice = mark_no_choice(choice, mask)
        return tensordict.set(policy.action_key, rows.put(choice.unsqueeze(-1)).squeeze(-1))

    def primer_for(self, env: EnvBase) -> object:
        """What an environment needs to carry the policy's memory; None without one."""
        return self.policy.primer_for(env)

    def check_env(self, env: EnvBase) -> None:
        """Raises InputError if the policy does not fit the environment, or the draws read what it does not show."""
        self.policy.check_env(env)
        for key in self._own_keys:
            if key not in env.observation_spec.keys(True, True):
                raise InputError(f"systematic draws read {key!r}, which the environment does not show")


def _places(seed: int, agents: int) -> Tensor:
    """Where each agent's items of each class begin, `[B, C]`: a permutation of (0..B - 1) / B, turned at random."""
    drawn: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed), "device": "cpu", "dtype": torch.float64}
    order = torch.rand(agents, CLASSES, **drawn).argsort(0).argsort(0)
    return (order + torch.rand(1, CLASSES, **drawn)) / agents
