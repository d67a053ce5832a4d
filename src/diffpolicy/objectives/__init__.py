"""What policies are trained by: TorchRL loss modules."""

from diffpolicy.objectives.discrete_sac import LatentDiscreteSACLoss
from diffpolicy.objectives.dqn import StackedDQNLoss
from diffpolicy.objectives.pathwise import PathwiseLoss, choice_probabilities

__all__ = [
    "LatentDiscreteSACLoss",
    "PathwiseLoss",
    "StackedDQNLoss",
    "choice_probabilities",
]
