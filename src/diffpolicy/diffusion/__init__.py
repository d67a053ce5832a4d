"""Mathematics of diffusion on tensors: noise schedules and samplers."""

from diffpolicy.diffusion.samplers import ReverseStep, ddim, ddpm, reverse_steps, run, timesteps
from diffpolicy.diffusion.schedules import SCHEDULES, NoiseSchedule, cosine, linear, vp

__all__ = [
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
