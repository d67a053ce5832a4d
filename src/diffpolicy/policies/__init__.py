"""Policies as tensordict modules: diffusion policies, and those without a chain."""

from diffpolicy.policies.choice import ChoicePolicy
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.direct import CategoricalPolicy, GreedyValuePolicy
from diffpolicy.policies.draws import Draws
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.policies.memory import MemoryState
from diffpolicy.policies.priors import ActionMemory, GaussianPrior, Prior
from diffpolicy.policies.recurrent import RecurrentState, with_recurrent_state
from diffpolicy.policies.rows import Rows
from diffpolicy.policies.sequential import decide_in_order
from diffpolicy.policies.systematic import SystematicDraws

__all__ = [
    "ActionMemory",
    "CategoricalHead",
    "CategoricalPolicy",
    "ChoicePolicy",
    "DiffusionPolicy",
    "Draws",
    "GaussianPrior",
    "GreedyValuePolicy",
    "MemoryState",
    "Prior",
    "RecurrentState",
    "Rows",
    "SystematicDraws",
    "decide_in_order",
    "with_recurrent_state",
]
