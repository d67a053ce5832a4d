"""Published methods as data: one dataclass a family, one YAML a preset; each trains on any problem."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.methods.action_critic import ActionCriticMethod as ActionCriticMethod
    from diffpolicy.methods.diffusion_sac import DiffusionSACMethod as DiffusionSACMethod
    from diffpolicy.methods.distillation import DistillationMethod as DistillationMethod
    from diffpolicy.methods.distillation import OneStepMethod as OneStepMethod
    from diffpolicy.methods.dppo import DPPOMethod as DPPOMethod
    from diffpolicy.methods.dqn import DQNMethod as DQNMethod
    from diffpolicy.methods.files import parse_method as parse_method
    from diffpolicy.methods.fpo import FPOMethod as FPOMethod
    from diffpolicy.methods.fql import FQLMethod as FQLMethod
    from diffpolicy.methods.fql import PlainFQLMethod as PlainFQLMethod
    from diffpolicy.methods.imitation import ChainImitationMethod as ChainImitationMethod
    from diffpolicy.methods.imitation import ImitationMethod as ImitationMethod
    from diffpolicy.methods.method import Method as Method
    from diffpolicy.methods.mirror_descent import MirrorDescentMethod as MirrorDescentMethod
    from diffpolicy.methods.off_policy import OffPolicyMethod as OffPolicyMethod
    from diffpolicy.methods.on_policy import OnPolicyMethod as OnPolicyMethod
    from diffpolicy.methods.ppo import DiffusionPPOMethod as DiffusionPPOMethod
    from diffpolicy.methods.ppo import PPOMethod as PPOMethod
    from diffpolicy.methods.qdfm import QDFMMethod as QDFMMethod
    from diffpolicy.methods.qvpo import QVPOMethod as QVPOMethod
    from diffpolicy.methods.rollouts import RolloutMethod as RolloutMethod
    from diffpolicy.methods.sac import SACMethod as SACMethod

attach(
    __name__,
    {
        "Method": "diffpolicy.methods.method",
        "OffPolicyMethod": "diffpolicy.methods.off_policy",
        "RolloutMethod": "diffpolicy.methods.rollouts",
        "OnPolicyMethod": "diffpolicy.methods.on_policy",
        "PPOMethod": "diffpolicy.methods.ppo",
        "DiffusionPPOMethod": "diffpolicy.methods.ppo",
        "SACMethod": "diffpolicy.methods.sac",
        "DiffusionSACMethod": "diffpolicy.methods.diffusion_sac",
        "DistillationMethod": "diffpolicy.methods.distillation",
        "OneStepMethod": "diffpolicy.methods.distillation",
        "DPPOMethod": "diffpolicy.methods.dppo",
        "FPOMethod": "diffpolicy.methods.fpo",
        "FQLMethod": "diffpolicy.methods.fql",
        "PlainFQLMethod": "diffpolicy.methods.fql",
        "ImitationMethod": "diffpolicy.methods.imitation",
        "ChainImitationMethod": "diffpolicy.methods.imitation",
        "DQNMethod": "diffpolicy.methods.dqn",
        "ActionCriticMethod": "diffpolicy.methods.action_critic",
        "MirrorDescentMethod": "diffpolicy.methods.mirror_descent",
        "QDFMMethod": "diffpolicy.methods.qdfm",
        "QVPOMethod": "diffpolicy.methods.qvpo",
        "parse_method": "diffpolicy.methods.files",
    },
)
__all__ = (
    "ActionCriticMethod",
    "ChainImitationMethod",
    "DPPOMethod",
    "DQNMethod",
    "DiffusionPPOMethod",
    "DiffusionSACMethod",
    "DistillationMethod",
    "FPOMethod",
    "FQLMethod",
    "ImitationMethod",
    "Method",
    "MirrorDescentMethod",
    "OffPolicyMethod",
    "OnPolicyMethod",
    "OneStepMethod",
    "PPOMethod",
    "PlainFQLMethod",
    "QDFMMethod",
    "QVPOMethod",
    "RolloutMethod",
    "SACMethod",
    "parse_method",
)
