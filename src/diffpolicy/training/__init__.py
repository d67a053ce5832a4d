"""Training through Lightning."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
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
        "Fitted": "diffpolicy.training.fit",
        "fit": "diffpolicy.training.fit",
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
    "EvolutionModule",
    "Fitted",
    "ImitationModule",
    "OffPolicyModule",
    "OfflineModule",
    "OnPolicyModule",
    "PackedReplay",
    "PathwiseModule",
    "RolloutStream",
    "TaughtModule",
    "fit",
)
