"""`DiffusionPolicy`: a prior, a denoiser, a sampler and a head as one tensordict module."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torchrl.envs import EnvBase
from typing_extensions import Unpack

from diffpolicy import _validate as check
from diffpolicy.diffusion.processes import Process
from diffpolicy.diffusion.sampler import Sampler
from diffpolicy.diffusion.tokens import TokenProcess
from diffpolicy.errors import InputError
from diffpolicy.networks.denoiser import MLPDenoiser
from diffpolicy.networks.item_denoiser import ItemDenoiser
from diffpolicy.networks.per_agent import PerAgent, ReadsItems, agents_of
from diffpolicy.policies.draws import generator_on
from diffpolicy.policies.guidance import Guidance
from diffpolicy.policies.heads import TokenHead
from diffpolicy.policies.options import ChoiceOptions, DiffusionOptions
from diffpolicy.policies.priors import Prior
from diffpolicy.policies.recording import RecordingPolicy

OPTIONS = {"MLPDenoiser": ("hidden", "act", "output", "time"), "ItemDenoiser": ("hidden", "heads", "blocks")}
"""What may be said of a denoiser that the policy makes itself, by its kind."""
Made = TypeVar("Made", bound="DiffusionPolicy")


class DiffusionPolicy(RecordingPolicy):
    """Denoises the logits of a choice from noise or from the remembered action, given an observation.

    The policy of D2SAC (arXiv 2303.13052) with `GaussianPrior()`, of LAD-TS (arXiv 2412.18212) with `ActionMemory()`.
    A subclass may override `embed(td)` (what is conditioned on), `denoise(x, t, cond)` and `decode(x0, mask)`.

    Args:
        prior: where the chain starts; None: a `GaussianPrior`.
        steps: I of a schedule that is named, at least 1.
        schedule: `vp`, `linear` or `cosine`, or a `Process` of any kind, which has its own I.
        sampler: a name of `diffusion.SAMPLERS`, or a `Sampler`; None: `ddpm`, and of tokens `ancestral`.
        sampler_steps: of the way back, from 1 to I; None: as many as the sampler takes by itself.
        prediction: what the denoiser predicts, the `noise` (LAD-TS, D2SAC), `x0` or, of a flow, the `velocity`.
        denoiser: options of `MLPDenoiser` (`hidden`, `act`, `output`, `time`), or where items are joint of
            `ItemDenoiser` (`hidden`, `heads`, `blocks`), with `kind: MLPDenoiser` for an MLP over the whole row; or a
            module with `forward(x, t, cond)` and if it likes `prepare(cond)`. A file describes a module of your own by
            its class's `to_dict` and `from_dict`, or by `config`; one without them is passed again,
            `load(path, denoiser=MyNet())`. Where agents have parameters of their own, each gets a copy of it, unless
            its attribute `agents_side_by_side` is their number.
        condition_drop: chance, from 0 to 1, that a row's condition is left out while the chain is imitated, a learned
            vector in its place, so that `ClassifierFree` can guide it; 0: never.
        guidance: how the chain is guided when the policy acts; None: not at all. See `with_guidance`.
        others: of `Policy`.

    Raises:
        InputError: an argument is out of range or of another kind, or the parts do not fit each other.

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
        sampler: str | Sampler | None = None,
        sampler_steps: int | None = None,
        prediction: str = "noise",
        denoiser: Mapping[str, Any] | nn.Module | None = None,
        condition_drop: float = 0.0,
        guidance: Guidance | None = None,
        **others: Unpack[ChoiceOptions],
    ) -> None:
        super().__init__(**others)
        check.no_class(denoiser, "denoiser")
        self._set_prior(prior)
        if denoiser is not None and not isinstance(denoiser, (Mapping, nn.Module)):
            raise InputError(f"denoiser must be options or a module, got {denoiser!r}")
        self._set_chain(schedule, steps, sampler, sampler_steps, prediction)
        self._check_states()
        self.options = {}
        self.denoiser: nn.Module = (
            self._fitted(denoiser) if isinstance(denoiser, nn.Module) else self._made_denoiser(dict(denoiser or {}))
        )
        self._set_drop(condition_drop)
        self._set_guidance(guidance)

    @classmethod
    def from_specs(cls: type[Made], env: EnvBase, **options: Unpack[DiffusionOptions]) -> Made:
        """A policy whose widths and keys are read off an environment's specs; see `Policy.from_specs`.

        Args:
            env: what is decided in.
            options: of `Policy.from_specs`, and prior, steps, schedule, sampler, denoiser... of this class. The head of
                a process of tokens is a `TokenHead` by default.
        """
        process = options.get("schedule")
        if isinstance(process, Process) and process.discrete and options.get("head") is None:
            options["head"] = TokenHead()
        return cls._from_specs(env, options)

    def _fitted(self, denoiser: nn.Module) -> nn.Module:
        """A module that was passed, as a policy of so many agents uses it; refuses one of other widths."""
        agents = agents_of(denoiser)
        if agents not in (None, self.agents):
            raise InputError(f"denoiser has parameters for {agents} agents, and the policy for {self.agents}")
        if isinstance(denoiser, MLPDenoiser):
            mine = {"actions": self.numbers, "condition": self.condition_dim}
            for name, width in mine.items():
                if getattr(denoiser, name) != width:
                    raise InputError(f"denoiser is of {getattr(denoiser, name)} {name}, and the policy of {width}")
            if denoiser.steps < self.process.steps:
                raise InputError(f"denoiser knows {denoiser.steps} steps, and the schedule has {self.process.steps}")
        if isinstance(denoiser, ReadsItems) and denoiser.reads_items and not self.reading.items:
            raise InputError(f"denoiser {type(denoiser).__name__} reads joint items, and here each is decided alone")
        return denoiser if self.agents is None or agents is not None else PerAgent(denoiser, self.agents)

    def _made_denoiser(self, options: dict[str, Any]) -> nn.Module:
        """One that the policy makes itself. Args: options: of it, and if it is told its `kind`."""
        items = self.reading.items
        kind = options.pop("kind", None)
        if kind is None and items and any(_of_mlp(name, value) for name, value in options.items()):
            raise InputError(
                f"denoiser {check.show(options)} is of an MLP, and joint items have an ItemDenoiser with hidden, heads "
                "and blocks; for an MLP over the whole row say 'kind': 'MLPDenoiser'"
            )
        kind = check.choice(kind or ("ItemDenoiser" if items else "MLPDenoiser"), "denoiser.kind", words=tuple(OPTIONS))
        check.known(options, OPTIONS[kind], "denoiser")
        if kind == "MLPDenoiser":
            self.options = options
            return MLPDenoiser(**self._denoiser_widths(), generator=self.generator, **options)
        if not items:
            raise InputError("denoiser ItemDenoiser reads joint items, and here each is decided alone")
        n = math.prod(items)
        widths = self.numbers // n, self.condition_dim // n, self.process.steps
        each = ItemDenoiser(*widths, flagged=self.reading.flagged, generator=self.generator, **options)
        return each if self.agents is None else PerAgent(each, self.agents)

    def _check_states(self) -> None:
        """Raises InputError if the process's states are not what the head and the prior read."""
        process, head = type(self.process).__name__, type(self.head).__name__
        if self.process.discrete and not self.head.tokens:
            raise InputError(f"the states of a {process} are tokens, and a {head} reads numbers; use a TokenHead")
        if self.head.tokens and not self.process.discrete:
            raise InputError(f"a {head} reads tokens, and the states of a {process} are numbers")
        if self.process.discrete and self.prior_network is not None:
            raise InputError(
                f"a {type(self.prior).__name__} starts from numbers, and the states of a {process} are tokens; use a "
                "GaussianPrior"
            )
        if self.prior.remembers and (self.process.discrete or self.reading.items):
            what = f"the states of a {process} are tokens" if self.process.discrete else "its items are joint"
            raise InputError(f"an ActionMemory remembers numbers of single items, and {what}; use a GaussianPrior")

    @property
    def numbers(self) -> int:
        """Numbers that the denoiser reads of a row."""
        return self.head.slots * self.vocabulary

    @property
    def items_read(self) -> int:
        items = self.reading.items
        apart = items and isinstance(self.denoiser, ReadsItems) and self.denoiser.reads_items
        return math.prod(items) if apart else 0

    def _denoiser_widths(self) -> dict[str, Any]:
        return {
            "actions": self.numbers,
            "condition": self.condition_dim,
            "steps": self.process.steps,
            "agents": self.agents,
        }

    @property
    def draws(self) -> int:
        """Numbers of N(0, 1) that a choice takes for each logit: x_I without a memory, and each noisy step's z."""
        return max(self.sampling.noisy_steps(self.process) - self.first, 0) + (not self.prior.remembers)

    def noise(self, rows: torch.Size) -> Tensor | None:
        if not self.process.discrete:
            return super().noise(rows)
        generator = generator_on(self.generator, self.device)
        shape = (self.draws, *rows, self.head.slots)
        return torch.rand(shape, generator=generator, device=generator.device)

    def no_noise(self, rows: torch.Size) -> Tensor | None:
        return torch.zeros(0, *rows, self.head.slots) if self.process.discrete else super().no_noise(rows)

    def end(self, condition: Tensor, latent: Tensor | None, noise: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """As `output`; through tokens the mask is heeded at each step, and none drawn (`no_noise`) takes the modes."""
        if not isinstance(self.process, TokenProcess):
            return self.output(condition, latent, noise)
        rows = condition.shape[:-1]
        noise = self.noise(rows) if noise is None else noise
        assert noise is not None
        start, steps = (noise[0], noise[1:]) if len(noise) else (None, None)
        allowed = self.allowed_tokens(mask, rows)
        if self.level is None:
            x = self.process.terminal(start, allowed)
        else:
            assert latent is not None
            start = torch.full(latent.shape, 0.5, device=latent.device) if start is None else start
            x = self.process.corrupt(latent, self.level, start, allowed)
        return self.token_chain(condition, x, steps, allowed, self.vocabulary, self.first)

    def output(self, condition: Tensor, latent: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """The end of one chain, x_0 `[.., M, A]`: from the latent if one is remembered, from the first noise if not."""
        if self.process.discrete:
            return self.end(condition, latent, noise)
        if noise is None:
            noise = self.noise(condition.shape[:-1])
        noise = None if noise is None else noise.to(condition)
        if self.prior.remembers:
            if latent is None:
                raise InputError(f"a policy with an ActionMemory needs its latent {self.latent_key!r}, got None")
            return self.chain(condition, latent, noise)
        assert noise is not None
        if self.level is None:
            given = None if self.prior_network is None else self.prior_network(condition)
            return self.chain(condition, self.process.terminal(self.prior.begin(given, noise[0])), noise[1:])
        if latent is None:
            raise InputError(f"a chain that begins at level {self.level} needs an x_0 to begin from, got None")
        return self.chain(condition, self.process.corrupt(latent, self.level, noise[0]), noise[1:], self.first)

    def config(self) -> dict[str, Any]:
        return {
            **super().config(),
            "prior": self.prior.to_dict(),
            **self._chain_form(),
            **self._steering_form(),
            "head": self.head.to_dict(),
        }

    @classmethod
    def _from_config(cls: type[Made], config: dict[str, Any]) -> Made:
        config["prior"] = Prior.from_dict(config["prior"])
        if config.get("guidance") is not None:
            config["guidance"] = Guidance.from_dict(config["guidance"])
        return super()._from_config(config)


def _of_mlp(name: str, value: Any) -> bool:
    """Whether an option is one that only an `MLPDenoiser` takes."""
    return name in ("act", "output", "time") or (name == "hidden" and isinstance(value, (list, tuple)))
