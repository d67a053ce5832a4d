"""Who pays for whom: externalities, difference rewards, objectives of a team."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.credit.externality import REWARD as REWARD
    from diffpolicy.edge.credit.externality import Counterfactual as Counterfactual
    from diffpolicy.edge.credit.externality import DifferenceReward as DifferenceReward
    from diffpolicy.edge.credit.externality import difference_rewards as difference_rewards
    from diffpolicy.edge.credit.externality import externality_s as externality_s
    from diffpolicy.edge.credit.externality import later_tasks as later_tasks
    from diffpolicy.edge.credit.externality import team_transitions as team_transitions
    from diffpolicy.edge.credit.objectives import busy_costs as busy_costs
    from diffpolicy.edge.credit.objectives import cvar_delay_s as cvar_delay_s
    from diffpolicy.edge.credit.objectives import delay_prices as delay_prices
    from diffpolicy.edge.credit.objectives import late_share as late_share
    from diffpolicy.edge.credit.objectives import least_unloaded_s as least_unloaded_s
    from diffpolicy.edge.credit.objectives import mean_delay_s as mean_delay_s
    from diffpolicy.edge.credit.objectives import mean_energy_j as mean_energy_j
    from diffpolicy.edge.credit.objectives import mean_price as mean_price
    from diffpolicy.edge.credit.objectives import mean_slowdown as mean_slowdown
    from diffpolicy.edge.credit.objectives import named_objective as named_objective
    from diffpolicy.edge.credit.objectives import played_outcome as played_outcome
    from diffpolicy.edge.credit.objectives import size_weighted_delay_s as size_weighted_delay_s

attach(
    __name__,
    {
        "Counterfactual": "diffpolicy.edge.credit.externality",
        "DifferenceReward": "diffpolicy.edge.credit.externality",
        "REWARD": "diffpolicy.edge.credit.externality",
        "busy_costs": "diffpolicy.edge.credit.objectives",
        "cvar_delay_s": "diffpolicy.edge.credit.objectives",
        "delay_prices": "diffpolicy.edge.credit.objectives",
        "difference_rewards": "diffpolicy.edge.credit.externality",
        "externality_s": "diffpolicy.edge.credit.externality",
        "late_share": "diffpolicy.edge.credit.objectives",
        "later_tasks": "diffpolicy.edge.credit.externality",
        "least_unloaded_s": "diffpolicy.edge.credit.objectives",
        "mean_delay_s": "diffpolicy.edge.credit.objectives",
        "mean_energy_j": "diffpolicy.edge.credit.objectives",
        "mean_price": "diffpolicy.edge.credit.objectives",
        "mean_slowdown": "diffpolicy.edge.credit.objectives",
        "named_objective": "diffpolicy.edge.credit.objectives",
        "played_outcome": "diffpolicy.edge.credit.objectives",
        "size_weighted_delay_s": "diffpolicy.edge.credit.objectives",
        "team_transitions": "diffpolicy.edge.credit.externality",
    },
)
__all__ = (
    "REWARD",
    "Counterfactual",
    "DifferenceReward",
    "busy_costs",
    "cvar_delay_s",
    "delay_prices",
    "difference_rewards",
    "externality_s",
    "late_share",
    "later_tasks",
    "least_unloaded_s",
    "mean_delay_s",
    "mean_energy_j",
    "mean_price",
    "mean_slowdown",
    "named_objective",
    "played_outcome",
    "size_weighted_delay_s",
    "team_transitions",
)
