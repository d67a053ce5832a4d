"""`FleetPolicy`: a latent-action diffusion policy that decides for any number of servers and stations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs import EnvBase

from diffpolicy._types import Ints
from diffpolicy.diffusion.sampler import DDIM
from diffpolicy.diffusion.samplers import reverse_steps
from diffpolicy.diffusion.schedules import NoiseSchedule
from diffpolicy.edge.env.env import LEVELS
from diffpolicy.edge.physics.file_steps import FileSteps
from diffpolicy.edge.pricing.chains import GatedChain, PriceChain
from diffpolicy.edge.pricing.decision import FleetDecision
from diffpolicy.edge.pricing.law import FEATURES, LATENTS, Coefficients
from diffpolicy.edge.pricing.memory import SPAN
from diffpolicy.edge.pricing.rule import FleetRule, refuse_unpriced
from diffpolicy.edge.pricing.slot import READS
from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.edge.workload.task_file import TaskList
from diffpolicy.errors import InputError
from diffpolicy.networks.set_denoiser import SetDenoiser
from diffpolicy.policies.chain_policy import ChainPolicy
from diffpolicy.policies.draws import outside_graphs
from diffpolicy.policies.finite import refuse_infinite
from diffpolicy.policies.masks import readable
from diffpolicy.policies.pure_decision import in_eval_mode
from diffpolicy.policies.recurrent import RecurrentState
from diffpolicy.policies.specs import information_of

MEASURED = ("agents", "service_s")
"""Seconds of each task on each server, where they were measured."""


class FleetPolicy(ChainPolicy):
    """Denoises, for each server, the coefficients of its price from those that it remembers; then prices decide.

    A row of the chain is a server, its x the K coefficients of the price, its condition F scale-free features, so the
    same parameters serve any fleet, also one whose servers come and go. The chain runs for all servers as a slot
    begins, for a server whenever a task was sent to it, and live for one more beside it, in turn; x_0 is remembered for
    its next run. A task goes where its own delay plus the price of the time that it takes from others is smallest.

    Args:
        information: `live`, `stale` or `private`, see `FleetRule`.
        steps: of the chain, I. hidden: width of the network.
        remember: whether a chain starts from the remembered x_0; otherwise from zero.
        gated: whether there are two sets of parameters more, of chains of one step: one for overload, one for long
            overload; see `chains.shares`.
        candidates, weight, learns: of `FleetRule`.
        sampler, sampler_steps: of `DiffusionPolicy`. seed: of the parameters and of the candidates.

    Raises:
        InputError: an argument is out of range, or the sampler draws noise; when acting, the environment shows less
            than the policy reads, or a number is not finite.

    Example:
        >>> policy = FleetPolicy.pretrained("live").for_scenario(Scenario.load("lad-ts"))
        >>> policy.information
        'live'
    """

    def __init__(
        self,
        *,
        information: str = "live",
        steps: int = 2,
        hidden: int = 32,
        remember: bool = True,
        gated: bool = False,
        candidates: int | None = None,
        weight: float = 1.0,
        learns: bool = True,
        sampler: str = "ddim",
        sampler_steps: int | None = None,
        seed: int = 0,
    ) -> None:
        if sampler != "ddim":
            raise InputError(f"a FleetPolicy decides without noise, so its sampler must be ddim, got {sampler!r}")
        rule = FleetRule(information, candidates, weight, learns=learns)
        super().__init__()
        self._start(seed, information)
        self._set_chain("vp", steps, sampler, sampler_steps, "x0")
        generator = torch.Generator().manual_seed(seed)
        self.denoiser = SetDenoiser(LATENTS, FEATURES, self.process.steps, hidden=hidden, generator=generator)
        self.more = nn.ModuleList(
            SetDenoiser(LATENTS, FEATURES, 1, hidden=hidden, generator=generator) for _ in range(2 * gated)
        )
        self.rule, self.hidden, self.remember, self.gated = rule, hidden, remember, gated
        self._declare(measured=False)

    action_key = ("agents", "action")

    def _declare(self, *, measured: bool) -> None:
        own: list[NestedKey] = [("agents", "arrival")] if self.information == "live" else ["shared_seed"]
        if self.rule.learns:
            own.append(SPAN)
        more = [MEASURED] if measured else []
        self.in_keys = [*READS, *own, *more, *(("fleet", name) for name in self.rule.remembers)]
        self.out_keys = [self.action_key]

    @classmethod
    def pretrained(cls, name: str) -> FleetPolicy:
        """A bundled policy; its `rule.weight` may be set to another value.

        Args:
            name: `live`, `stale`, `private` (the parameters of `stale`), `live-gated` and `stale-gated`, which hold
            over any horizon, or one of the controls, `live-one-pass` and `stale-one-pass`.

        Raises:
            InputError: no such policy is bundled.
        """
        from diffpolicy.edge.pricing.bundled import load_bundled

        return load_bundled(name)

    def for_scenario(self, scenario: Scenario) -> FleetPolicy:
        """The policy itself, told the usual length of a step and the law of arrivals, which a stale one imagines.

        Args:
            scenario: on which it is going to decide.
        """
        self.rule = self.rule.for_scenario(scenario)
        self._declare(measured=scenario.measured)
        return self

    def with_information(self, information: str) -> FleetPolicy:
        """The same parameters and law with other information. Args: information: `live`, `stale` or `private`."""
        other = type(self)(**{**self.config(), "information": information})
        other.load_state_dict(self.state_dict())
        other.trained = self.trained
        other.rule.told = self.rule.told
        other._declare(measured=MEASURED in self.in_keys)
        return other

    @contextmanager
    def told(self, tasks: TaskList) -> Iterator[None]:
        """While this lasts, the rule knows how a task file's single requests come, if its steps are such.

        Args:
            tasks: whose mean distance in seconds and mean work in Gcycles the rule is given.
        """
        before = self.rule
        self.rule = before.for_tasks(tasks)
        try:
            yield
        finally:
            self.rule = before

    def decision(self) -> FleetDecision:
        """One live decision as a pure function, which `export_decision` writes.

        Raises:
            InputError: the policy is stale.
        """
        if self.information != "live":
            raise InputError(
                f"only a live fleet policy decides task by task, got one of {self.information} information, "
                "which imagines a whole slot at once"
            )
        chain = in_eval_mode(self).coefficients()
        return FleetDecision(chain, weight=self.rule.weight, candidates=self.rule.candidates)

    def coefficients(self) -> Coefficients:
        """The chain of every server's coefficients; a subclass of another network gives its own, which may be any."""
        assert isinstance(self.denoiser, SetDenoiser)
        if not isinstance(self.sampling, DDIM) or self.sampling.eta > 0:
            raise InputError(f"a FleetPolicy decides without noise, so its sampler must be ddim, got {self.sampler!r}")
        first = PriceChain(self.denoiser, self.sampling.reverse_steps(self.process), self.remember)
        if not self.gated:
            return first
        once = reverse_steps(NoiseSchedule.named("vp", 1), None, 0.0, "x0")
        more = (PriceChain(each, once, self.remember) for each in self.more if isinstance(each, SetDenoiser))
        return GatedChain((first, *more))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        refuse_infinite(tensordict, READS, ("agents", "valid"))
        action = self.decide(tensordict, self.generator)
        latent = tensordict["next", "fleet", "latent"]
        if readable(latent):
            refuse_unpriced(latent.sum().item())
        return tensordict.set(self.action_key, action)

    def decide(self, tensordict: TensorDictBase, generator: torch.Generator) -> Tensor:
        """Decides in float64; writes `("next", "fleet", ...)`.

        Args:
            tensordict: what `in_keys` tell. generator: draws the candidates, where there are some.

        Returns:
            Servers, int64 `[E, B, N]`.

        Raises:
            InputError: the sampler draws noise.
        """
        action: Tensor = outside_graphs(self._decide, tensordict, generator)  # it has a compiled form of its own
        return action

    def _decide(self, tensordict: TensorDictBase, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            return self.rule.decide(tensordict, self._in_float64(), generator)

    def decide_file(self, steps: FileSteps, first: TensorDictBase) -> Ints | None:
        """All decisions of a task file at once, `[K]`, see `FleetRule.decide_file`; None of a subclass."""
        if type(self) is not FleetPolicy:
            return None
        with torch.no_grad():
            return self.rule.decide_file(steps, first, self._in_float64())

    def _in_float64(self) -> Coefficients:
        """The coefficients as acting computes them."""
        coefficients = self.coefficients()
        return coefficients.to(torch.float64) if isinstance(coefficients, PriceChain | GatedChain) else coefficients

    def primer_for(self, env: EnvBase) -> RecurrentState:
        """The recurrent keys `("fleet", ...)`, which start afresh with each episode.

        Args:
            env: an `OffloadingEnv`, of any number of servers.
        """
        servers = env.observation_spec["queue_gcycles"].shape[-1]
        return self.rule.primer(servers, *env.observation_spec["agents", "valid"].shape[-2:])

    def check_env(self, env: EnvBase) -> None:
        """Refuses an environment that shows less than the policy reads.

        Args:
            env: where it is to act.

        Raises:
            InputError: its level of information is a lower one.
        """
        shown = information_of(env)
        if LEVELS.index(shown) < LEVELS.index(self.information):
            raise InputError(f"the policy reads {self.information} information, and the environment shows {shown}")

    def config(self) -> dict[str, Any]:
        return {
            "information": self.information,
            "steps": self.schedule.steps,
            "hidden": self.hidden,
            "remember": self.remember,
            "gated": self.gated,
            "candidates": self.rule.candidates,
            "weight": self.rule.weight,
            "learns": self.rule.learns,
            "sampler": self.sampler,
            "sampler_steps": self.sampler_steps,
            "seed": self.seed,
        }
