"""How a trained policy decides when it is judged."""

from __future__ import annotations

from typing import Any

from torchrl.envs.utils import ExplorationType

from diffpolicy.policies import BestOf


def judged_by(policy: Any, *, chance: bool) -> ExplorationType:
    """Without chance, unless that is asked for or a critic is to choose: among draws, of which there is one without.

    Args:
        policy: that is judged. chance: whether it decides with chance, as it was trained.
    """
    chooses = isinstance(getattr(policy, "guidance", None), BestOf)
    return ExplorationType.RANDOM if chance or chooses else ExplorationType.DETERMINISTIC
