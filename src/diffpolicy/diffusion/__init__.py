"""Mathematics of diffusion on tensors: noise schedules, processes, samplers and their steps."""

from diffpolicy.diffusion.categorical import KeptProcess, MaskedProcess, UniformProcess
from diffpolicy.diffusion.continuous import (
    Coefficients,
    CosineSchedule,
    EDMSchedule,
    FlowSchedule,
    Schedule,
    VPSchedule,
)
from diffpolicy.diffusion.discrete import Ancestral, TauLeaping, TokenSampler
from diffpolicy.diffusion.guidance import along_gradient, classifier_free
from diffpolicy.diffusion.kernels import Categorical, Gaussian, Kernel, Point, over_slots
from diffpolicy.diffusion.named import SAMPLERS
from diffpolicy.diffusion.predictions import (
    PREDICTIONS,
    noise_of_score,
    noise_of_velocity,
    noise_of_x0,
    score_of_noise,
    velocity_of,
    x0_of_noise,
    x0_of_velocity,
)
from diffpolicy.diffusion.processes import FlowProcess, GaussianProcess, Process
from diffpolicy.diffusion.sampler import DDIM, Advance, Chain, ReverseStep, Sampler
from diffpolicy.diffusion.samplers import ddim, ddpm, reverse_steps, run, timesteps
from diffpolicy.diffusion.schedules import SCHEDULES, NoiseSchedule, cosine, linear, vp
from diffpolicy.diffusion.solvers import DPMSolver, EDMHeun, FlowEuler, FlowHeun, OneStep, Solver
from diffpolicy.diffusion.tokens import TokenProcess, allowed_by

__all__ = [
    "DDIM",
    "PREDICTIONS",
    "SAMPLERS",
    "SCHEDULES",
    "Advance",
    "Ancestral",
    "Categorical",
    "Chain",
    "Coefficients",
    "CosineSchedule",
    "DPMSolver",
    "EDMHeun",
    "EDMSchedule",
    "FlowEuler",
    "FlowHeun",
    "FlowProcess",
    "FlowSchedule",
    "Gaussian",
    "GaussianProcess",
    "KeptProcess",
    "Kernel",
    "MaskedProcess",
    "NoiseSchedule",
    "OneStep",
    "Point",
    "Process",
    "ReverseStep",
    "Sampler",
    "Schedule",
    "Solver",
    "TauLeaping",
    "TokenProcess",
    "TokenSampler",
    "UniformProcess",
    "VPSchedule",
    "allowed_by",
    "along_gradient",
    "classifier_free",
    "cosine",
    "ddim",
    "ddpm",
    "linear",
    "noise_of_score",
    "noise_of_velocity",
    "noise_of_x0",
    "over_slots",
    "reverse_steps",
    "run",
    "score_of_noise",
    "timesteps",
    "velocity_of",
    "vp",
    "x0_of_noise",
    "x0_of_velocity",
]
