"""`ChainedMethod`: what the methods share whose policy is a `DiffusionPolicy`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from torchrl.envs import EnvBase

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy.diffusion.named import SAMPLERS
from diffpolicy.diffusion.schedules import SCHEDULES
from diffpolicy.methods.fields import Rule, mapping
from diffpolicy.methods.rollouts import RolloutMethod
from diffpolicy.networks.denoiser import OUTPUTS
from diffpolicy.policies.diffusion import OPTIONS, DiffusionPolicy
from diffpolicy.policies.heads import Head, JointHead
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.priors import ActionMemory, Prior


def _prior(value: Any, key: str) -> dict[str, Any]:
    """The JSON form of a prior."""
    form = mapping(value, key)
    Prior.from_dict(form)
    return form


def _denoiser(value: Any, key: str) -> dict[str, Any]:
    """Kind and options of a denoiser that a policy makes itself."""
    form = mapping(value, key)
    kind = check.choice(form.get("kind", "ItemDenoiser"), f"{key}.kind", words=tuple(OPTIONS))
    check.known(form, ("kind", *OPTIONS[kind]), key)
    return form


@dataclass(frozen=True, kw_only=True)
class ChainedMethod(RolloutMethod):
    """The chain of a method's policy; a family stands beside it among the bases of a method.

    Args:
        prior: its JSON form, e.g. `{"type": "ActionMemory", "key": "item"}` or `ActionMemory(key="item").to_dict()`.
        steps: of the chain, I.
        schedule: of the noise, by its name.
        sampler: by its name.
        sampler_steps: steps that the sampler takes; None: all of the schedule.
        prediction: what the network predicts, the `noise` or `x0`.
        denoiser: its `kind`, `MLPDenoiser` or, by default where items are joint, `ItemDenoiser`; and options of the
            second, `hidden`, `heads` and `blocks`.
        denoiser_output: how the network of an `MLPDenoiser` ends.
        time: width of its embedding of the chain's step.
    """

    prior: dict[str, Any] = field(default_factory=lambda: {"type": "GaussianPrior"})
    steps: int = 5
    schedule: str = "vp"
    sampler: str = "ddpm"
    sampler_steps: int | None = None
    prediction: Literal["noise", "x0"] = "noise"
    denoiser: dict[str, Any] = field(default_factory=dict)
    denoiser_output: Literal["softmax", "tanh", "linear"] = "linear"
    time: int = 16
    rules: ClassVar[Mapping[str, Rule]] = {
        **RolloutMethod.rules,
        "prior": _prior,
        "steps": partial(check.integer, least=1, most=_limits.CHAIN),
        "schedule": partial(check.choice, words=SCHEDULES),
        "sampler": partial(check.choice, words=[name for name, make in SAMPLERS.items() if not make("x0").tokens]),
        "sampler_steps": lambda value, key: (
            None if value is None else check.integer(value, key, least=1, most=_limits.CHAIN)
        ),
        "prediction": partial(check.choice, words=("noise", "x0")),
        "denoiser": _denoiser,
        "denoiser_output": partial(check.choice, words=OUTPUTS),
        "time": partial(check.integer, least=2, most=10**5),
    }

    own_policy: ClassVar[type[Policy]] = DiffusionPolicy
    through_chain: ClassVar[bool] = True
    """Whether its objective goes through the steps of the sampler, so that another one makes another policy."""

    def refuses(self, head: Head) -> str:
        """As its family; and a memory is of single items, one of probabilities of an action that has them."""
        prior = Prior.from_dict(self.prior)
        if not isinstance(prior, ActionMemory):
            return super().refuses(head)
        lacks = prior.store == "probabilities" and head.expectation != "enumerated"
        missing = "the prior stores probabilities, which a vector does not have; set prior.store to x0"
        joint = "a memory is of single items; use a GaussianPrior" if isinstance(head, JointHead) else ""
        return super().refuses(head) or joint or (missing if lacks else "")

    def options(self) -> dict[str, Any]:
        of_network = ("hidden", "act")
        return {
            **{name: value for name, value in super().options().items() if name not in of_network},
            "prior": Prior.from_dict(self.prior),
            "steps": self.steps,
            "schedule": self.schedule,
            "sampler": self.sampler,
            "sampler_steps": self.sampler_steps,
            "prediction": self.prediction,
            "denoiser": self._denoiser_options(),
        }

    def _denoiser_options(self) -> dict[str, Any]:
        """Those of the denoiser, with its kind where it is told."""
        kind = self.denoiser.get("kind", "ItemDenoiser" if self.items == "joint" else "MLPDenoiser")
        if kind == "ItemDenoiser":
            return self.denoiser
        given = {"hidden": list(self.hidden), "act": self.act, "output": self.denoiser_output, "time": self.time}
        return {**given, **self.denoiser}

    def make_policy(self, env: EnvBase, seed: int) -> Policy:
        policy = super().make_policy(env, seed)
        policy.trained["through_chain"] = self.through_chain
        return policy
