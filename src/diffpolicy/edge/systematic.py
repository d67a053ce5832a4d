"""Systematic draws: uniforms that tasks of like size share out evenly, so that chance does not pile them up."""

from __future__ import annotations

from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase

from diffpolicy.errors import InputError
from diffpolicy.policies.choice import ChoicePolicy
from diffpolicy.policies.draws import without_chance
from diffpolicy.policies.masks import mark_no_choice, mask_logits

CLASSES = 64
"""Size classes, an eighth of an octave wide; they repeat after eight octaves."""
GOLDEN = 0.6180339887498949
"""Steps of the golden ratio's fraction spread any number of points evenly over [0, 1)."""


class SystematicDraws(TensorDictModuleBase):
    """A policy that draws its choices, with systematic instead of independent uniforms; nothing else changes.

    Each single choice has the chances that the policy gives it (systematic sampling, Madow 1949), but tasks of like
    size no longer meet on one server by bad luck.

    Args:
        policy: draws its choices (`CategoricalHead("sample")`).
        over: `station`: each station spreads its own tasks in the order of their sizes, by the policy's own generator.
            `stations`: all stations together spread those of a size class, each in its place of a permutation that
            the seed they share gives; no message is needed.

    Raises:
        InputError: the policy draws nothing.
    """

    information = "stale"

    def __init__(self, policy: ChoicePolicy, over: Literal["station", "stations"] = "stations") -> None:
        super().__init__()
        if over not in ("station", "stations"):
            raise InputError(f"over must be station or stations, got {over!r}")
        if not policy.draws_choice:
            raise InputError("the policy draws no choices, so there is nothing to draw systematically")
        if policy.information == "live":
            raise InputError("systematic draws are for policies that read paper or stale information, got live")
        self.policy, self.over = policy, over
        self.generator = policy.generator
        self.in_keys = [*policy.in_keys, ("agents", "work_gcycles"), "shared_seed"]
        self.out_keys = list(policy.out_keys)

    def uniforms(self, td: TensorDictBase) -> Tensor:
        """U[0, 1) of each task, `[E, B, N]`."""
        work, valid = td["agents", "work_gcycles"], td["agents", "valid"]
        e, b, _ = work.shape
        if self.over == "station":
            rank = work.masked_fill(~valid, torch.inf).argsort(dim=-1, stable=True).argsort(dim=-1)
            drawn: dict[str, Any] = {"generator": self.generator, "device": self.generator.device}
            start = torch.rand(e, b, 1, dtype=torch.float64, **drawn).to(work.device)
            return torch.remainder(start + rank * GOLDEN, 1)
        size = (8 * work.double().clamp_min(1e-12).log2()).floor().long() % CLASSES
        mine = torch.nn.functional.one_hot(size, CLASSES) * valid.unsqueeze(-1)
        index = (mine.cumsum(-2) - mine).gather(-1, size.unsqueeze(-1)).squeeze(-1)
        start = torch.stack([_places(seed, b) for seed in td["shared_seed"].flatten().tolist()]).to(work.device)
        return torch.remainder(start.gather(-1, size) + index * GOLDEN, 1)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        policy = self.policy
        rows = policy.rows(tensordict)
        observation = policy.read_observation(tensordict, rows)
        latent, mask = policy.read_latent(tensordict, rows), policy.read_mask(tensordict, rows)
        condition, still = policy.condition(observation), without_chance()
        noise = policy.no_noise(condition.shape[:-1]) if still else policy.noise(condition.shape[:-1])
        x0 = policy.output(condition, latent, noise)
        policy.write_latent(tensordict, rows, x0)
        uniform = None if still else rows.take(self.uniforms(tensordict).unsqueeze(-1)).squeeze(-1)
        choice = policy.choose_at(mask_logits(policy.decode(x0, mask), mask), uniform)
        choice = mark_no_choice(choice, mask)
        return tensordict.set(policy.action_key, rows.put(choice.unsqueeze(-1)).squeeze(-1))

    def primer_for(self, env: EnvBase) -> object:
        """What an environment needs to carry the policy's memory; None without one."""
        return self.policy.primer_for(env) if hasattr(self.policy, "primer_for") else None

    def check_env(self, env: EnvBase) -> None:
        """Raises InputError if the policy does not fit the environment."""
        self.policy.check_env(env)


def _places(seed: int, stations: int) -> Tensor:
    """Where each station's tasks of each class begin, `[B, C]`: a permutation of (0..B - 1) / B, turned at random."""
    drawn: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed), "device": "cpu", "dtype": torch.float64}
    order = torch.rand(stations, CLASSES, **drawn).argsort(0).argsort(0)
    return (order + torch.rand(1, CLASSES, **drawn)) / stations
