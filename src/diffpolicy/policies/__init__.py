"""Policies as tensordict modules: diffusion policies, and those without a chain."""

from diffpolicy._deprecated import keep_old_names
from diffpolicy.policies.chain_policy import ChainPolicy
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.direct import FeedforwardPolicy, GreedyValuePolicy
from diffpolicy.policies.draws import Draws
from diffpolicy.policies.guidance import BestOf, ClassifierFree, Guidance, QGradient
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.policies.keys import Keys
from diffpolicy.policies.memory import MemoryState
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.priors import ActionMemory, GaussianPrior, NetworkPrior, Prior
from diffpolicy.policies.recurrent import RecurrentState, with_recurrent_state
from diffpolicy.policies.rows import Rows
from diffpolicy.policies.saving import SavedPolicy
from diffpolicy.policies.sequential import decide_in_order
from diffpolicy.policies.steered import SteeredPolicy
from diffpolicy.policies.systematic import SystematicDraws

__all__ = [
    "ActionMemory",
    "BestOf",
    "CategoricalHead",
    "ChainPolicy",
    "ClassifierFree",
    "DiffusionPolicy",
    "Draws",
    "FeedforwardPolicy",
    "GaussianPrior",
    "GreedyValuePolicy",
    "Guidance",
    "Keys",
    "MemoryState",
    "NetworkPrior",
    "Policy",
    "Prior",
    "QGradient",
    "RecurrentState",
    "Rows",
    "SavedPolicy",
    "SteeredPolicy",
    "SystematicDraws",
    "decide_in_order",
    "with_recurrent_state",
]

keep_old_names(__name__)
