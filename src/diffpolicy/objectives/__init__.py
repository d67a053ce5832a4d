"""What policies are trained by: TorchRL loss modules."""

from diffpolicy.objectives.discrete_sac import LatentDiscreteSACLoss
from diffpolicy.objectives.dqn import StackedDQNLoss

__all__ = [
    "LatentDiscreteSACLoss",
    "StackedDQNLoss",
]
