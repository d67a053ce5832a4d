"""`DiffusionPolicy`: a prior, a denoiser, a sampler and a head as one tensordict module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs import EnvBase
from typing_extensions import Unpack

from diffpolicy import _validate as check
from diffpolicy.diffusion.processes import Process
from diffpolicy.diffusion.sampler import Sampler
from diffpolicy.errors import InputError
from diffpolicy.networks.denoiser import MLPDenoiser
from diffpolicy.networks.per_agent import PerAgent
from diffpolicy.policies.chain_policy import ChainPolicy
from diffpolicy.policies.memory import MemoryState
from diffpolicy.policies.options import ChoiceOptions, DiffusionOptions
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.priors import ActionMemory, GaussianPrior, Prior
from diffpolicy.policies.rows import Rows

OPTIONS = ("hidden", "act", "output", "time")
"""What may be said of an `MLPDenoiser` that the policy makes itself."""
Made = TypeVar("Made", bound="DiffusionPolicy")


class DiffusionPolicy(ChainPolicy, Policy):
    """Denoises the logits of a choice from noise or from the remembered action, given an observation.

    The policy of D2SAC (arXiv 2303.13052) with `GaussianPrior()`, of LAD-TS (arXiv 2412.18212) with `ActionMemory()`.
    A subclass may override `embed(td)` (what is conditioned on), `denoise(x, t, cond)` and `decode(x0, mask)`.

    Args:
        prior: where the chain starts.
        steps: I of the schedule. schedule: `vp`, `linear` or `cosine`, or a `Process` of any kind, which has its own I.
        sampler: `ddpm` or `ddim`, or a `Sampler`. sampler_steps: fewer steps than I, or None.
        prediction: what the denoiser predicts, the `noise` (LAD-TS, D2SAC) or `x0`.
        denoiser: options of `MLPDenoiser` (`hidden`, `act`, `output`, `time`), or a module with `forward(x, t, cond)`
            and if it likes `prepare(cond)`. A file describes a module of your own by its class's `to_dict` and
            `from_dict`, or by `config`; one without them is passed again, `load(path, denoiser=MyNet())`. Where agents
            have parameters of their own, each gets a copy of it, unless its attribute `stack` is their number.
        others: of `Policy`.

    Example:
        >>> env = OffloadingEnv(Scenario.load("lad-ts"), batch_size=[8])
        >>> policy = DiffusionPolicy.from_specs(env, prior=ActionMemory(), steps=5)
        >>> env = with_recurrent_state(env, policy)
        >>> policy(env.reset())["agents", "action"].shape
        torch.Size([8, 20, 50])
    """

    def __init__(
        self,
        *,
        prior: Prior | None = None,
        steps: int = 5,
        schedule: str | Process = "vp",
        sampler: str | Sampler = "ddpm",
        sampler_steps: int | None = None,
        prediction: str = "noise",
        denoiser: Mapping[str, Any] | nn.Module | None = None,
        **others: Unpack[ChoiceOptions],
    ) -> None:
        super().__init__(**others)
        self.prior: Prior = prior if prior is not None else GaussianPrior()
        if not isinstance(self.prior, Prior):
            raise InputError(f"prior must be a Prior, such as ActionMemory(), got {check.show(prior)}")
        if denoiser is not None and not isinstance(denoiser, (Mapping, nn.Module)):
            raise InputError(f"denoiser must be options or a module, got {denoiser!r}")
        self._set_chain(schedule, steps, sampler, sampler_steps, prediction)
        if self.process.discrete:
            raise InputError(f"the states of a {type(self.process).__name__} are tokens, and a head reads numbers here")
        self.options = dict(denoiser) if isinstance(denoiser, Mapping) else {}
        check.known(self.options, OPTIONS, "denoiser")
        self.denoiser: nn.Module = (
            self._fitted(denoiser)
            if isinstance(denoiser, nn.Module)
            else MLPDenoiser(**self._denoiser_widths(), generator=self.generator, **self.options)
        )
        self.remembered: Tensor | None = None
        if self.prior.remembers:
            self.in_keys = [*self.in_keys, self.latent_key]
            self.out_keys = [*self.out_keys, _next(self.latent_key)]

    @classmethod
    def from_specs(cls: type[Made], env: EnvBase, **options: Unpack[DiffusionOptions]) -> Made:
        """A policy whose widths and keys are read off an environment's specs; see `Policy.from_specs`.

        Args:
            env: what is decided in.
            options: of `Policy.from_specs`, and prior, steps, schedule, sampler, denoiser... of this class.
        """
        return cls._from_specs(env, options)

    def _fitted(self, denoiser: nn.Module) -> nn.Module:
        """A module that was passed, as a policy of so many agents uses it; refuses one of other widths."""
        stack = getattr(denoiser, "stack", None)
        stack = stack if isinstance(stack, int) else None
        if stack not in (None, self.agents):
            raise InputError(f"denoiser has parameters for stack = {stack} agents, and the policy for {self.agents}")
        if isinstance(denoiser, MLPDenoiser):
            mine = {"actions": self.choices, "condition": self.condition_dim}
            for name, width in mine.items():
                if getattr(denoiser, name) != width:
                    raise InputError(f"denoiser is of {getattr(denoiser, name)} {name}, and the policy of {width}")
            if denoiser.steps < self.process.steps:
                raise InputError(f"denoiser knows {denoiser.steps} steps, and the schedule has {self.process.steps}")
        return denoiser if self.agents is None or stack is not None else PerAgent(denoiser, self.agents)

    def _denoiser_widths(self) -> dict[str, Any]:
        return {
            "actions": self.choices,
            "condition": self.condition_dim,
            "steps": self.process.steps,
            "stack": self.agents,
        }

    @property
    def latent_key(self) -> NestedKey:
        """Of the latent action, `latent` beside the action; `[*, A]`."""
        key = self.action_key
        return (*key[:-1], "latent") if isinstance(key, tuple) else "latent"

    @property
    def draws(self) -> int:
        """Numbers of N(0, 1) that a choice takes for each logit: x_I without a memory, and each noisy step's z."""
        return self.sampling.noisy_steps(self.process) + (not self.prior.remembers)

    def output(self, condition: Tensor, latent: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """The end of one chain, x_0 `[.., M, A]`: from the latent if one is remembered, from the first noise if not."""
        if noise is None:
            noise = self.noise(condition.shape[:-1])
        noise = None if noise is None else noise.to(condition)
        if self.prior.remembers:
            if latent is None:
                raise InputError(f"a policy with an ActionMemory needs its latent {self.latent_key!r}, got None")
            return self.chain(condition, latent, noise)
        assert noise is not None
        return self.chain(condition, self.process.terminal(noise[0]), noise[1:])

    # The memory

    @property
    def remembers(self) -> bool:
        return self.prior.remembers

    def read_latent(self, td: TensorDictBase, rows: Rows) -> Tensor | None:
        return rows.take(td[self.latent_key].to(self.dtype)) if self.prior.remembers else None

    def write_latent(self, td: TensorDictBase, rows: Rows, x0: Tensor) -> None:
        if not isinstance(self.prior, ActionMemory):
            return
        stored = rows.put(self.prior.stored(x0, self.head)).to(td[self.latent_key].device)
        if self.valid_key is not None:
            stored = torch.where(td[self.valid_key].unsqueeze(-1), stored, td[self.latent_key].to(stored))
        td[_next(self.latent_key)] = stored

    def primer_for(self, env: EnvBase) -> MemoryState | None:
        """What an environment needs to carry the memory; None without one. See `with_recurrent_state`.

        While training memories live as long as the prior's `lifetime` says; in `eval` mode each episode starts from a
        copy of what was remembered when the policy was saved.
        """
        if not isinstance(self.prior, ActionMemory):
            return None
        shape = env.full_action_spec[self.action_key].shape[len(env.batch_size) :]
        shape = shape[: len(shape) - len(self.head.event)]
        remembered = None if self.training else self.remembered
        if remembered is not None and remembered.shape[1:-2] != shape[:-1]:
            raise InputError(f"tensor 'remembered' is of {list(remembered.shape[1:-2])} agents, got {list(shape[:-1])}")
        group = len(self.action_key) - 1 if isinstance(self.action_key, tuple) else 0
        latent = torch.Size([*shape, self.choices])
        forget = not self.training or self.prior.lifetime == "episode"
        return MemoryState(
            self.prior, self.latent_key, latent, group, self.generator, remembered=remembered, forget=forget
        )

    def config(self) -> dict[str, Any]:
        return {
            **super().config(),
            "prior": self.prior.to_dict(),
            **self._chain_form(),
            "head": self.head.to_dict(),
        }

    @classmethod
    def _from_config(cls: type[Made], config: dict[str, Any]) -> Made:
        config["prior"] = Prior.from_dict(config["prior"])
        return super()._from_config(config)

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


def _next(key: NestedKey) -> NestedKey:
    return ("next", *key) if isinstance(key, tuple) else ("next", key)
