"""Networks, alone or stacked: dense layers, the MLP denoiser, critics."""

from diffpolicy.networks.critic import CriticEnsemble
from diffpolicy.networks.denoiser import MLPDenoiser, TimeEmbedding
from diffpolicy.networks.dense import MLP, Dense

__all__ = [
    "MLP",
    "CriticEnsemble",
    "Dense",
    "MLPDenoiser",
    "TimeEmbedding",
]
