"""`RememberingPolicy`: a policy whose prior may remember the action of before, and what it reads and keeps of it."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.heads import CompositeHead
from diffpolicy.policies.memory import MemoryState
from diffpolicy.policies.nested_keys import next_key
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.priors import ActionMemory, GaussianPrior, Prior
from diffpolicy.policies.recurrent import carried
from diffpolicy.policies.rows import Rows


class RememberingPolicy(Policy, base=True):
    """`Policy` with a prior. A subclass's constructor calls `_set_prior`."""

    prior: Prior
    prior_network: Any
    """What the prior makes x_I of, a module of the condition, or None."""
    remembered: Tensor | None = None
    """What every episode starts from in `eval` mode, `[T, *agents, N, A]`, or None."""

    def _set_prior(self, prior: Prior | None) -> None:
        self.prior = prior if prior is not None else GaussianPrior()
        if not isinstance(self.prior, Prior):
            check.no_class(prior, "prior")
            raise InputError(f"prior must be a Prior, such as ActionMemory(), got {check.show(prior)}")
        self.prior_network = self.prior.network(self.condition_dim, self.choices, self.agents, self.generator)
        if self.prior.remembers:
            self.in_keys = [*self.in_keys, self.latent_key]
            self.out_keys = [*self.out_keys, next_key(self.latent_key)]

    @property
    def latent_key(self) -> NestedKey:
        """Of the latent action, `latent` beside the action; `[*, A]`."""
        return self.beside("latent")

    @property
    def remembers(self) -> bool:
        return self.prior.remembers

    def read_latent(self, td: TensorDictBase, rows: Rows) -> Tensor | None:
        return rows.take(carried(td, self.latent_key).to(self.dtype)) if self.prior.remembers else None

    def write_latent(self, td: TensorDictBase, rows: Rows, x0: Tensor) -> None:
        if not isinstance(self.prior, ActionMemory):
            return
        remembered = td[self.latent_key]
        before = x0 if self.prior.rate == 1 else rows.take(remembered.to(x0))
        now = self.prior.follow(before, x0, self.head).to(remembered.device)
        td[next_key(self.latent_key)] = rows.put_into(remembered.to(now), now)

    def primer_for(self, env: EnvBase) -> MemoryState | None:
        """What an environment needs to carry the memory; None without one. See `with_recurrent_state`.

        While training memories live as long as the prior's `lifetime` says; in `eval` mode each episode starts from a
        copy of what was remembered when the policy was saved.
        """
        if not isinstance(self.prior, ActionMemory):
            return None
        shape = env.full_action_spec[self.action_keys[0]].shape[len(env.batch_size) :]
        first = self.head.parts[0] if isinstance(self.head, CompositeHead) else self.head
        shape = shape[: len(shape) - len(first.event)]
        remembered = None if self.training else self.remembered
        if remembered is not None and remembered.shape[1:-2] != shape[:-1]:
            raise InputError(f"tensor 'remembered' is of {list(remembered.shape[1:-2])} agents, got {list(shape[:-1])}")
        group = len(self.action_key) - 1 if isinstance(self.action_key, tuple) else 0
        latent = torch.Size([*shape, self.choices])
        forget = not self.training or self.prior.lifetime == "episode"
        return MemoryState(
            self.prior, self.latent_key, latent, group, self.generator, remembered=remembered, forget=forget
        )

    def tensors(self) -> dict[str, Tensor]:
        remembered = {} if self.remembered is None else {"remembered": self.remembered.cpu().contiguous()}
        return {**super().tensors(), **remembered}

    def _check_tensors(self, tensors: dict[str, Tensor]) -> None:
        remembered = tensors.get("remembered")
        super()._check_tensors({k: v for k, v in tensors.items() if k != "remembered"})
        group = len(self.action_key) - 1 if isinstance(self.action_key, tuple) else 0
        if remembered is not None and (remembered.ndim < group + 2 or remembered.shape[-1] != self.choices):
            raise InputError(
                f"tensor 'remembered' has shape {list(remembered.shape)}, which {self.choices} choices do not fit"
            )

    def _load_tensors(self, tensors: dict[str, Tensor]) -> None:
        super()._load_tensors({k: v for k, v in tensors.items() if k != "remembered"})
        self.remembered = tensors.get("remembered")
