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
    """Discrete soft actor-critic through a chain: D2SAC with a `GaussianPrior`, LAD-TS with an `ActionMemory`.

    Args: of `ChainedMethod` and `SACMethod`.
    """

    rules: ClassVar[Mapping[str, Rule]] = {**SACMethod.rules, **ChainedMethod.rules}
