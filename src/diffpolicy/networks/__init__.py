"""Networks, of one or of G agents: dense layers, the MLP denoiser, critics; and a denoiser of sets."""

from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.networks.denoiser import MLPDenoiser, TimeEmbedding
from diffpolicy.networks.dense import MLP, Dense
from diffpolicy.networks.item_denoiser import ItemDenoiser
from diffpolicy.networks.normalizer import RunningNorm
from diffpolicy.networks.per_agent import PerAgent
from diffpolicy.networks.set_denoiser import SetDenoiser

__all__ = [
    "MLP",
    "CriticEnsemble",
    "Dense",
    "ItemDenoiser",
    "MLPDenoiser",
    "PerAgent",
    "RunningNorm",
    "SetDenoiser",
    "TimeEmbedding",
]
