"""`DiffusionSACMethod`: soft actor-critic through a denoising chain (D2SAC, LAD-TS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from diffpolicy.methods.chained import ChainedMethod
from diffpolicy.methods.fields import Rule
from diffpolicy.methods.sac import SACMethod


@dataclass(frozen=True, kw_only=True)
class DiffusionSACMethod(ChainedMethod, SACMethod):
    """Soft actor-critic through a denoising chain, of choices or of vectors within bounds.

    With a `GaussianPrior` it is D2SAC (arXiv 2303.13052), with an `ActionMemory` LAD-TS (arXiv 2412.18212); the losses
    are `LatentDiscreteSACLoss`, or `LatentBoundedSACLoss` where actions are vectors.

    Args:
        prior, steps, schedule, sampler, sampler_steps, prediction, denoiser, denoiser_output, time: of
            `ChainedMethod`.
        others: of `SACMethod`.

    Raises:
        InputError: a field is out of range or of another kind.

    Example:
        >>> rates = {"actor": 1e-3, "critic": 1e-3, "alpha": 1e-3}
        >>> method = DiffusionSACMethod(learning_rates=rates, prior=ActionMemory(key="item").to_dict(), steps=3)
        >>> module = method.build(EnvProblem(Clinic, steps=50), environments=8)
        >>> fit(module, episodes=8).episodes, module.policy.prior.key
        (8, 'item')
    """

    rules: ClassVar[Mapping[str, Rule]] = {**SACMethod.rules, **ChainedMethod.rules}
