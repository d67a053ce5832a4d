"""Training through Lightning, and the evaluation protocol."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.evaluation.intervals import Interval as Interval
    from diffpolicy.evaluation.intervals import mean_interval as mean_interval
    from diffpolicy.evaluation.intervals import ratio_interval as ratio_interval
    from diffpolicy.evaluation.playing import Played as Played
    from diffpolicy.evaluation.playing import play as play
    from diffpolicy.evaluation.playing import undisturbed as undisturbed
    from diffpolicy.methods.diffusion_sac import DiffusionSACMethod as DiffusionSACMethod
    from diffpolicy.methods.dqn import DQNMethod as DQNMethod
    from diffpolicy.methods.files import parse_method as parse_method
    from diffpolicy.methods.method import Method as Method
    from diffpolicy.methods.off_policy import OffPolicyMethod as OffPolicyMethod
    from diffpolicy.methods.sac import SACMethod as SACMethod
    from diffpolicy.training.evolution import EvolutionModule as EvolutionModule
    from diffpolicy.training.fit import Fitted as Fitted
    from diffpolicy.training.fit import fit as fit
    from diffpolicy.training.imitation import ImitationModule as ImitationModule
    from diffpolicy.training.off_policy import OffPolicyModule as OffPolicyModule
    from diffpolicy.training.offline import OfflineModule as OfflineModule
    from diffpolicy.training.on_policy import OnPolicyModule as OnPolicyModule
    from diffpolicy.training.pathwise import PathwiseModule as PathwiseModule
    from diffpolicy.training.replay import PackedReplay as PackedReplay
    from diffpolicy.training.stream import RolloutStream as RolloutStream
    from diffpolicy.training.taught import TaughtModule as TaughtModule

attach(
    __name__,
    {
        "undisturbed": "diffpolicy.evaluation.playing",
        "Fitted": "diffpolicy.training.fit",
        "fit": "diffpolicy.training.fit",
        "Played": "diffpolicy.evaluation.playing",
        "Interval": "diffpolicy.evaluation.intervals",
        "play": "diffpolicy.evaluation.playing",
        "mean_interval": "diffpolicy.evaluation.intervals",
        "ratio_interval": "diffpolicy.evaluation.intervals",
        "Method": "diffpolicy.methods.method",
        "OffPolicyMethod": "diffpolicy.methods.off_policy",
        "SACMethod": "diffpolicy.methods.sac",
        "DiffusionSACMethod": "diffpolicy.methods.diffusion_sac",
        "DQNMethod": "diffpolicy.methods.dqn",
        "parse_method": "diffpolicy.methods.files",
        "OfflineModule": "diffpolicy.training.offline",
        "OffPolicyModule": "diffpolicy.training.off_policy",
        "OnPolicyModule": "diffpolicy.training.on_policy",
        "PathwiseModule": "diffpolicy.training.pathwise",
        "EvolutionModule": "diffpolicy.training.evolution",
        "ImitationModule": "diffpolicy.training.imitation",
        "PackedReplay": "diffpolicy.training.replay",
        "RolloutStream": "diffpolicy.training.stream",
        "TaughtModule": "diffpolicy.training.taught",
    },
)
__all__ = (
    "DQNMethod",
    "DiffusionSACMethod",
    "EvolutionModule",
    "Fitted",
    "ImitationModule",
    "Interval",
    "Method",
    "OffPolicyMethod",
    "OffPolicyModule",
    "OfflineModule",
    "OnPolicyModule",
    "PackedReplay",
    "PathwiseModule",
    "Played",
    "RolloutStream",
    "SACMethod",
    "TaughtModule",
    "fit",
    "mean_interval",
    "parse_method",
    "play",
    "ratio_interval",
    "undisturbed",
)
