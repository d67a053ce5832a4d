"""Problems: an environment with what experiments need to know of it, made from any TorchRL or Gymnasium environment."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.environments.checks import check_policy as check_policy
    from diffpolicy.environments.cost import Cost as Cost
    from diffpolicy.environments.data_set import read_data as read_data
    from diffpolicy.environments.data_set import rows_of as rows_of
    from diffpolicy.environments.decision_log import read_decisions as read_decisions
    from diffpolicy.environments.env_problem import EnvProblem as EnvProblem
    from diffpolicy.environments.gymnasium import gym_problem as gym_problem
    from diffpolicy.environments.lanes import Lanes as Lanes
    from diffpolicy.environments.problem import Problem as Problem
    from diffpolicy.environments.problem_checks import check_problem as check_problem
    from diffpolicy.environments.random_rule import RandomRule as RandomRule
    from diffpolicy.environments.schedule import Schedule as Schedule
    from diffpolicy.environments.tally import Tally as Tally
    from diffpolicy.environments.transitions import step_transitions as step_transitions

attach(
    __name__,
    {
        "read_data": "diffpolicy.environments.data_set",
        "rows_of": "diffpolicy.environments.data_set",
        "read_decisions": "diffpolicy.environments.decision_log",
        "Cost": "diffpolicy.environments.cost",
        "EnvProblem": "diffpolicy.environments.env_problem",
        "Lanes": "diffpolicy.environments.lanes",
        "Problem": "diffpolicy.environments.problem",
        "RandomRule": "diffpolicy.environments.random_rule",
        "Schedule": "diffpolicy.environments.schedule",
        "Tally": "diffpolicy.environments.tally",
        "check_policy": "diffpolicy.environments.checks",
        "check_problem": "diffpolicy.environments.problem_checks",
        "gym_problem": "diffpolicy.environments.gymnasium",
        "step_transitions": "diffpolicy.environments.transitions",
    },
)
__all__ = (
    "Cost",
    "EnvProblem",
    "Lanes",
    "Problem",
    "RandomRule",
    "Schedule",
    "Tally",
    "check_policy",
    "check_problem",
    "gym_problem",
    "read_data",
    "read_decisions",
    "rows_of",
    "step_transitions",
)
