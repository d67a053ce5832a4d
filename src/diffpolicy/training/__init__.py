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
    from diffpolicy.training.evolution import EvolutionModule as EvolutionModule
    from diffpolicy.training.fit import Fitted as Fitted
    from diffpolicy.training.imitation import ImitationModule as ImitationModule
    from diffpolicy.training.method_files import parse_method as parse_method
    from diffpolicy.training.methods import DiffusionSACMethod as DiffusionSACMethod
    from diffpolicy.training.methods import DQNMethod as DQNMethod
    from diffpolicy.training.methods import Method as Method
    from diffpolicy.training.methods import OffPolicyMethod as OffPolicyMethod
    from diffpolicy.training.methods import SACMethod as SACMethod
    from diffpolicy.training.off_policy import OffPolicyModule as OffPolicyModule
    from diffpolicy.training.pathwise import PathwiseModule as PathwiseModule
    from diffpolicy.training.replay import PackedReplay as PackedReplay
    from diffpolicy.training.stream import RolloutStream as RolloutStream

__getattr__, __dir__ = attach(
    __name__,
    {
        "undisturbed": "diffpolicy.evaluation.playing",
        "Fitted": "diffpolicy.training.fit",
        "Played": "diffpolicy.evaluation.playing",
        "Interval": "diffpolicy.evaluation.intervals",
        "play": "diffpolicy.evaluation.playing",
        "mean_interval": "diffpolicy.evaluation.intervals",
        "ratio_interval": "diffpolicy.evaluation.intervals",
        "Method": "diffpolicy.training.methods",
        "OffPolicyMethod": "diffpolicy.training.methods",
        "SACMethod": "diffpolicy.training.methods",
        "DiffusionSACMethod": "diffpolicy.training.methods",
        "DQNMethod": "diffpolicy.training.methods",
        "parse_method": "diffpolicy.training.method_files",
        "OffPolicyModule": "diffpolicy.training.off_policy",
        "PathwiseModule": "diffpolicy.training.pathwise",
        "EvolutionModule": "diffpolicy.training.evolution",
        "ImitationModule": "diffpolicy.training.imitation",
        "PackedReplay": "diffpolicy.training.replay",
        "RolloutStream": "diffpolicy.training.stream",
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
    "PackedReplay",
    "PathwiseModule",
    "Played",
    "RolloutStream",
    "SACMethod",
    "mean_interval",
    "parse_method",
    "play",
    "ratio_interval",
    "undisturbed",
)
