"""Mathematics of diffusion on tensors: noise schedules, processes, samplers and their steps."""

from diffpolicy.diffusion.kernels import Categorical, Gaussian, Kernel, Point, over_slots
from diffpolicy.diffusion.processes import FlowProcess, GaussianProcess, Process
from diffpolicy.diffusion.sampler import DDIM, Chain, ReverseStep, Sampler
from diffpolicy.diffusion.samplers import PREDICTIONS, ddim, ddpm, reverse_steps, run, timesteps
from diffpolicy.diffusion.schedules import SCHEDULES, NoiseSchedule, cosine, linear, vp
from diffpolicy.diffusion.tokens import TokenProcess

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
    "TokenProcess",
    "cosine",
    "ddim",
    "ddpm",
    "linear",
    "over_slots",
    "reverse_steps",
    "run",
    "timesteps",
    "vp",
]
