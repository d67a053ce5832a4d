"""What policies are trained by: TorchRL loss modules."""

from diffpolicy._deprecated import keep_old_names
from diffpolicy.objectives.action_critic import ActionCriticLoss
from diffpolicy.objectives.actor_critic import SoftActorCriticLoss
from diffpolicy.objectives.bounded_sac import LatentBoundedSACLoss
from diffpolicy.objectives.critics import action_critic, action_values
from diffpolicy.objectives.denoising import DenoisingLoss, denoising_errors
from diffpolicy.objectives.discrete_sac import LatentDiscreteSACLoss
from diffpolicy.objectives.distillation import DistillationLoss, divergence
from diffpolicy.objectives.dppo import DPPOLoss
from diffpolicy.objectives.dqn import AgentsDQNLoss
from diffpolicy.objectives.fpo import FPOLoss
from diffpolicy.objectives.fql import FQLLoss
from diffpolicy.objectives.imitation import ImitationLoss
from diffpolicy.objectives.likelihood import LikelihoodLoss
from diffpolicy.objectives.mirror_descent import MirrorDescentLoss, OnChainMirrorLoss
from diffpolicy.objectives.off_policy import OffPolicyLoss
from diffpolicy.objectives.pathwise import PathwiseLoss, choice_probabilities
from diffpolicy.objectives.ppo import ChainPPOLoss
from diffpolicy.objectives.qdfm import QDFMLoss
from diffpolicy.objectives.qvpo import QVPOLoss
from diffpolicy.objectives.reverse_mirror import ReverseMirrorLoss
from diffpolicy.objectives.token_imitation import TokenImitationLoss, token_errors
from diffpolicy.objectives.weighted import WeightedActionLoss

__all__ = [
    "ActionCriticLoss",
    "AgentsDQNLoss",
    "ChainPPOLoss",
    "DPPOLoss",
    "DenoisingLoss",
    "DistillationLoss",
    "FPOLoss",
    "FQLLoss",
    "ImitationLoss",
    "LatentBoundedSACLoss",
    "LatentDiscreteSACLoss",
    "LikelihoodLoss",
    "MirrorDescentLoss",
    "OffPolicyLoss",
    "OnChainMirrorLoss",
    "PathwiseLoss",
    "QDFMLoss",
    "QVPOLoss",
    "ReverseMirrorLoss",
    "SoftActorCriticLoss",
    "TokenImitationLoss",
    "WeightedActionLoss",
    "action_critic",
    "action_values",
    "choice_probabilities",
    "denoising_errors",
    "divergence",
    "token_errors",
]

keep_old_names(__name__)
