"""`ChainPolicy`: a policy that denoises: a process, a sampler and a denoiser, and how files tell them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.functional import one_hot

from diffpolicy import _validate as check
from diffpolicy._suggest import meant
from diffpolicy.diffusion.named import SAMPLERS
from diffpolicy.diffusion.processes import GaussianProcess, Process
from diffpolicy.diffusion.sampler import DDIM, Sampler
from diffpolicy.diffusion.schedules import SCHEDULES
from diffpolicy.errors import InputError
from diffpolicy.networks.denoiser import MLPDenoiser
from diffpolicy.networks.per_agent import PerAgent, Prepares
from diffpolicy.policies.class_names import file_name, is_ours
from diffpolicy.policies.denoisers import describe, full, rebuild
from diffpolicy.policies.finite import refuse_unsure
from diffpolicy.policies.guidance import Guided
from diffpolicy.policies.masks import mask_logits
from diffpolicy.policies.protocols import frozen
from diffpolicy.policies.registry import part_form, part_of, part_with
from diffpolicy.policies.saving import SavedPolicy

Made = TypeVar("Made", bound="ChainPolicy")


class ChainPolicy(SavedPolicy, base=True):
    """Base of policies with a chain: a process, a sampler, and `with_sampler` to act under another one.

    A subclass's constructor calls `_set_chain` and sets `denoiser`; `DiffusionPolicy` is one.

    Example:
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), steps=10)
        >>> faster = policy.with_sampler("ddim", steps=2)
        >>> isinstance(faster, ChainPolicy), policy.path, faster.path
        (True, (10, 9, 8, 7, 6, 5, 4, 3, 2, 1), (10, 5))
    """

    denoiser: nn.Module
    options: Mapping[str, Any] = {}
    level: int | None = None
    """Where chains begin, if what they begin from is given; None: at I."""

    def _set_chain(
        self, process: str | Process, levels: int, sampler: str | Sampler | None, steps: int | None, prediction: str
    ) -> None:
        """Args: process: or its schedule's name. levels: of a name. sampler, steps: of the way back; None: ancestral.

        prediction: what the denoiser predicts.
        """
        for name, part in (("schedule", process), ("sampler", sampler)):
            check.no_class(part, name)
        self.prediction = prediction
        self.process = process if isinstance(process, Process) else GaussianProcess(process, levels)
        ancestral = "ancestral" if self.process.discrete else "ddpm"
        self._set_sampler(ancestral if sampler is None else sampler, steps)

    def _set_sampler(self, sampler: str | Sampler, steps: int | None) -> None:
        if steps is not None:
            steps = check.integer(steps, "sampler_steps", least=1)
        if isinstance(sampler, Sampler):
            self.sampling = sampler if steps is None else part_with(sampler, steps=steps)
            self.sampler = file_name(type(sampler))
        elif isinstance(sampler, str) and sampler in SAMPLERS:
            self.sampling = part_with(SAMPLERS[sampler](self.prediction), steps=steps)
            self.sampler = sampler
        else:
            near = meant(sampler, SAMPLERS) if isinstance(sampler, str) else ""
            raise InputError(f"sampler must be one of {', '.join(SAMPLERS)} or a Sampler, got {sampler!r}{near}")
        if self.sampling.tokens != self.process.discrete:
            kind = "tokens" if self.process.discrete else "numbers"
            fit = [name for name, make in SAMPLERS.items() if make("x0").tokens == self.process.discrete]
            raise InputError(
                f"the states of a {type(self.process).__name__} are {kind}, and a {type(self.sampling).__name__} goes "
                f"through others; sampler must be one of {', '.join(fit)}, or a Sampler of such states"
            )
        self.sampler_steps = self.sampling.steps
        self.path = self.sampling.grid(self.process)[:-1]
        if isinstance(self.sampling, DDIM):
            self.sampling.reverse_steps(self.process)  # so that tracing finds them

    @property
    def schedule(self) -> Process:
        """The forward process, whose `steps` are I."""
        return self.process

    @property
    def schedule_name(self) -> str:
        """Of a named schedule; the process's class else."""
        process = self.process
        named = type(process) is GaussianProcess and isinstance(process.schedule, str)
        return str(process.schedule) if named else file_name(type(process))  # type: ignore[attr-defined]

    def with_sampler(self: Made, sampler: str | Sampler, steps: int | None = None) -> Made:
        """The same parameters under another sampler; warns if they were trained through their chain.

        Args:
            sampler: its name, or a `Sampler`. steps: fewer than it takes by itself, or None.

        Raises:
            InputError: the chain begins at a level that the other sampler does not pass.
        """
        other = self._twin()
        other._set_sampler(sampler, steps)
        if self.level is not None and self.level not in other.path:
            raise InputError(
                f"the chain begins at level {self.level}, which is none of {other.path}, those of {sampler!r}"
            )
        same = replace(other.sampling, steps=None) == replace(self.sampling, steps=None) and other.path == self.path
        if self.trained.get("through_chain") and not same:
            warnings.warn(
                f"the policy was trained through its {self.sampler} chain of {len(self.path)} steps; "
                f"under {other.sampler} with {len(other.path)} steps it is another policy",
                stacklevel=2,
            )
        return other

    def _twin(self: Made) -> Made:
        """A policy of the same parameters, with draws of its own that go on as these would."""
        other = copy.copy(self)
        other.__dict__ = {**self.__dict__, "_modules": dict(self._modules)}
        other.trained = dict(self.trained)
        other.generator = copy.deepcopy(self.generator)
        return other

    # The chain

    def denoise(self, x: Tensor, t: int | Tensor, cond: Any) -> Tensor:
        """What the denoiser predicts of rows, the noise or x_0; logits of x_0 where states are tokens.

        Args:
            x: `[.., M, A]`, one-hot numbers where states are tokens; `[.., M, n, W]` if the denoiser reads items.
            t: step, 1..I; where tokens are imitated each row's own, `[.., M]`.
            cond: what the denoiser's `prepare` made of `embed`, or what `embed` gave.
        """
        return self.denoiser(x, t, cond)  # type: ignore[no-any-return]

    def predicted(self, x: Tensor, t: int | Tensor, cond: Any) -> Tensor:
        """What a chain goes by: `denoise`, or what guidance makes of it. Args: of `denoise`; cond: of `conditioned`."""
        return cond.predicted(x, t) if isinstance(cond, Guided) else self.denoise(x, t, cond)

    def conditioned(self, condition: Tensor) -> object:
        """What the chain's predictions are given, `prepared` where nothing guides it. Args: condition: `[.., M, F]`."""
        return self.prepared(condition)

    def chain(self, condition: Tensor, x: Tensor, noise: Tensor | None, first: int = 0) -> Tensor:
        """x_0 of rows; a pure function of its arguments.

        Args:
            condition: `[.., M, F]`. x: x_I, `[.., M, A]`.
            noise: of each step but the last, `[steps - 1, .., M, A]`; None where the sampler spreads none.
            first: number of the step that it begins with, where x is the state at the level of that.
        """
        n, cond = self.items_read, self.conditioned(condition)
        if not n:
            return self.sampling.sample(self.predicted, x, cond, self.process, noise, first=first)
        noise = None if noise is None else noise.unflatten(-1, (n, -1))
        x = x.unflatten(-1, (n, -1))
        return self.sampling.sample(self.predicted, x, cond, self.process, noise, first=first).flatten(-2)

    def token_chain(
        self, condition: Tensor, x: Tensor, noise: Tensor | None, allowed: Tensor, vocabulary: int, first: int = 0
    ) -> Tensor:
        """The same of tokens, int64 `[.., M, K]`.

        Args:
            condition: `[.., M, F]`. x: x_I, `[.., M, K]`.
            noise: U[0, 1), `[steps, .., M, K]`; None: the likeliest at each step.
            allowed: which choices x_0 may be, bool `[.., M, K, W]`. vocabulary: V, the network's numbers of a slot.
            first: of `chain`.
        """

        def logits(x: Tensor, t: int, cond: Any) -> Tensor:
            found = self.token_logits(x, t, cond, allowed, vocabulary)
            refuse_unsure(found, condition, self, "the policy's output")  # tokens drawn of it would not tell
            return found

        return self.sampling.sample(logits, x, self.conditioned(condition), self.process, noise, first=first)

    def token_logits(self, x: Tensor, t: int | Tensor, cond: Any, allowed: Tensor, vocabulary: int) -> Tensor:
        """Logits of x_0 that are predicted of tokens, `[.., M, K, W]`, those of forbidden choices at -1e9.

        Args:
            x: x_t, `[.., M, K]`. t: 1..I, of all rows or `[.., M]`. cond: prepared, or guided. allowed,
                vocabulary: of `token_chain`.
        """
        n = self.items_read
        numbers = one_hot(x, vocabulary).to(self.dtype).flatten(-2)
        given = self.predicted(numbers.unflatten(-1, (n, -1)) if n else numbers, t, cond)
        return mask_logits(given.reshape(*x.shape, vocabulary)[..., : allowed.shape[-1]], allowed)

    def settled(self) -> AbstractContextManager[None]:
        """While it lasts, what depends on no row is computed once, such as a denoiser's embedding of time."""
        return frozen(self.denoiser)

    @property
    def items_read(self) -> int:
        """How many items of a row the denoiser reads apart from each other, n; 0: it reads a row's numbers at once."""
        return 0

    def prepared(self, condition: Tensor) -> object:
        """What does not change along the chain. Args: condition: `[.., M, F]`."""
        condition = condition.unflatten(-1, (self.items_read, -1)) if self.items_read else condition
        return self.denoiser.prepare(condition) if isinstance(self.denoiser, Prepares) else condition

    # How files describe it

    def _chain_form(self) -> dict[str, Any]:
        """The constructor's arguments that tell it, as JSON holds them."""
        return {
            "steps": self.process.steps,
            "schedule": self.schedule_name if self.schedule_name in SCHEDULES else part_form(self.process),
            "sampler": self.sampler if self.sampler in SAMPLERS else {**part_form(self.sampling), "steps": None},
            "sampler_steps": self.sampler_steps,
            "prediction": self.prediction,
            "denoiser": self._denoiser_form(),
        }

    def _denoiser_widths(self) -> dict[str, Any]:
        """What an `MLPDenoiser` of this policy is made with, beside its options."""
        return {}

    def _denoiser_form(self) -> dict[str, Any]:
        """Of the denoiser, for a file: its options where its widths are the policy's, else what `describe` says."""
        denoiser, widths = self.denoiser, self._denoiser_widths()
        if type(denoiser) is not MLPDenoiser:
            return describe(denoiser)
        form = denoiser.to_dict()
        if any(form[name] != width for name, width in widths.items()):
            return describe(denoiser)
        options = {name: value for name, value in form.items() if name not in widths}
        return dict(self.options) if full(self.options) == full(options) else options

    @classmethod
    def _from_config(cls: type[Made], config: dict[str, Any]) -> Made:
        if isinstance(config.get("schedule"), Mapping):
            config["schedule"] = part_of(config["schedule"], Process, "schedule")  # type: ignore[type-abstract]
        if isinstance(config.get("sampler"), Mapping):
            config["sampler"] = part_of(config["sampler"], Sampler, "sampler")  # type: ignore[type-abstract]
        form = config.pop("denoiser", None)
        given = rebuild(form) if isinstance(form, Mapping) and "kind" in form else form
        if isinstance(given, Mapping) and config.get("joint_items"):
            given = {"kind": "MLPDenoiser", **given}
        passed = config if given is None else {**config, "denoiser": given}
        if not is_ours(_made_by(cls)) and not isinstance(form, nn.Module):
            # a subclass may make its denoiser itself, and then takes none
            with suppress(TypeError):
                alone = super()._from_config(dict(config))
                if given is None or alone._denoiser_form() == form:
                    return alone
        return super()._from_config(passed)

    def _check_described(self, config: dict[str, Any]) -> None:
        form = config.get("denoiser")
        if form is None:
            return
        mine = full(self._denoiser_form())
        if isinstance(form, Mapping) and form.get("given") is True:
            kind = check.show(form.get("kind"))
            if mine.get("kind") == form.get("kind"):
                return
            if type(self.denoiser) is MLPDenoiser:
                raise InputError(
                    f"the denoiser is a module {kind} of your own, which no file describes: pass it, "
                    "load(path, denoiser=...), or give its class to_dict and from_dict before saving"
                )
            raise InputError(f"the denoiser is a module {kind}, got {check.show(mine.get('kind', 'MLPDenoiser'))}")
        if mine != full(form):
            raise InputError(f"denoiser was {full(form)} when the policy was saved, got {mine}")

    def _of_agent(self, agent: int) -> dict[str, Any]:
        if isinstance(self.denoiser, PerAgent):
            return {"denoiser": copy.deepcopy(self.denoiser.each[agent])}
        if "kind" not in self._denoiser_form():
            return {}
        own = getattr(self.denoiser, "for_agent", None)
        if own is None:
            name = type(self.denoiser).__name__
            raise InputError(f"the denoiser {name} holds all agents' parameters; give it a method for_agent(agent)")
        return {"denoiser": own(agent)}


def _made_by(cls: type) -> type:
    """The class in a class's order that has its constructor."""
    return next(base for base in cls.__mro__ if "__init__" in vars(base))
