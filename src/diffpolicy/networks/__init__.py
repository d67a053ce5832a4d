"""Networks, alone or stacked: dense layers, the MLP denoiser, critics."""

from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.networks.denoiser import MLPDenoiser, TimeEmbedding
from diffpolicy.networks.dense import MLP, Dense
from diffpolicy.networks.normalizer import RunningNorm

__all__ = [
    "MLP",
    "CriticEnsemble",
    "Dense",
    "MLPDenoiser",
    "RunningNorm",
    "TimeEmbedding",
]
