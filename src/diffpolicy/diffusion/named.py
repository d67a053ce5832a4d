"""Samplers by name, as policies, methods and commands take them."""

from __future__ import annotations

from collections.abc import Callable

from diffpolicy.diffusion.discrete import Ancestral, TauLeaping
from diffpolicy.diffusion.sampler import DDIM, Sampler
from diffpolicy.diffusion.solvers import DPMSolver, EDMHeun, FlowEuler, FlowHeun, OneStep

SAMPLERS: dict[str, Callable[[str], Sampler]] = {
    "ddpm": lambda prediction: DDIM(eta=1.0, prediction=prediction),
    "ddim": lambda prediction: DDIM(eta=0.0, prediction=prediction),
    "dpm++": lambda prediction: DPMSolver(prediction=prediction),
    "edm-heun": lambda prediction: EDMHeun(prediction=prediction),
    "flow-euler": lambda prediction: FlowEuler(prediction=prediction),
    "flow-heun": lambda prediction: FlowHeun(prediction=prediction),
    "one-step": lambda prediction: OneStep(prediction=prediction),
    "ancestral": lambda _: Ancestral(),
    "tau-leaping": lambda _: TauLeaping(),
}
"""Each made for what a network predicts; the last two go through tokens."""
