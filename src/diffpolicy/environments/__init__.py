"""Problems: an environment with what experiments need to know of it, made from any TorchRL or Gymnasium environment."""

from diffpolicy.environments.checks import check_policy
from diffpolicy.environments.cost import Cost
from diffpolicy.environments.env_problem import EnvProblem
from diffpolicy.environments.gymnasium import gym_problem
from diffpolicy.environments.lanes import Lanes
from diffpolicy.environments.problem import Problem
from diffpolicy.environments.problem_checks import check_problem
from diffpolicy.environments.random_rule import RandomRule
from diffpolicy.environments.tally import Tally
from diffpolicy.environments.transitions import step_transitions

__all__ = [
    "Cost",
    "EnvProblem",
    "Lanes",
    "Problem",
    "RandomRule",
    "Tally",
    "check_policy",
    "check_problem",
    "gym_problem",
    "step_transitions",
]
