"""What policies are trained by: TorchRL loss modules."""

from diffpolicy.objectives.actor_critic import SoftActorCriticLoss
from diffpolicy.objectives.bounded_sac import LatentBoundedSACLoss
from diffpolicy.objectives.critics import action_critic, action_values
from diffpolicy.objectives.denoising import DenoisingLoss, denoising_errors
from diffpolicy.objectives.discrete_sac import LatentDiscreteSACLoss
from diffpolicy.objectives.dqn import StackedDQNLoss
from diffpolicy.objectives.imitation import ImitationLoss
from diffpolicy.objectives.likelihood import LikelihoodLoss
from diffpolicy.objectives.off_policy import OffPolicyLoss
from diffpolicy.objectives.pathwise import PathwiseLoss, choice_probabilities
from diffpolicy.objectives.ppo import ChainPPOLoss
from diffpolicy.objectives.token_imitation import TokenImitationLoss

__all__ = [
    "ChainPPOLoss",
    "DenoisingLoss",
    "ImitationLoss",
    "LatentBoundedSACLoss",
    "LatentDiscreteSACLoss",
    "LikelihoodLoss",
    "OffPolicyLoss",
    "PathwiseLoss",
    "SoftActorCriticLoss",
    "StackedDQNLoss",
    "TokenImitationLoss",
    "action_critic",
    "action_values",
    "choice_probabilities",
    "denoising_errors",
]
