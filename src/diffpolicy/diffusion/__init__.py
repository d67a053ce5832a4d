"""Mathematics of diffusion on tensors: noise schedules and samplers."""

from diffpolicy.diffusion.samplers import PREDICTIONS, ReverseStep, ddim, ddpm, reverse_steps, run, timesteps
from diffpolicy.diffusion.schedules import SCHEDULES, NoiseSchedule, cosine, linear, vp

__all__ = [
    "PREDICTIONS",
    "SCHEDULES",
    "NoiseSchedule",
    "ReverseStep",
    "cosine",
    "ddim",
    "ddpm",
    "linear",
    "reverse_steps",
    "run",
    "timesteps",
    "vp",
]
