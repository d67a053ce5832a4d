"""Mathematics of diffusion on tensors: noise schedules, processes, samplers and their steps."""

from diffpolicy.diffusion.kernels import Categorical, Gaussian, Kernel, Point
from diffpolicy.diffusion.processes import FlowProcess, GaussianProcess, Process
from diffpolicy.diffusion.sampler import DDIM, Chain, ReverseStep, Sampler
from diffpolicy.diffusion.samplers import PREDICTIONS, ddim, ddpm, reverse_steps, run, timesteps
from diffpolicy.diffusion.schedules import SCHEDULES, NoiseSchedule, cosine, linear, vp

__all__ = [
    "DDIM",
    "PREDICTIONS",
    "SCHEDULES",
    "Categorical",
    "Chain",
    "FlowProcess",
    "Gaussian",
    "GaussianProcess",
    "Kernel",
    "NoiseSchedule",
    "Point",
    "Process",
    "ReverseStep",
    "Sampler",
    "cosine",
    "ddim",
    "ddpm",
    "linear",
    "reverse_steps",
    "run",
    "timesteps",
    "vp",
]
