"""Evaluating policies on identical episodes of any problem: playing, intervals, results."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.environments.entrants import make_policy as make_policy
    from diffpolicy.evaluation.evaluating import Evaluation as Evaluation
    from diffpolicy.evaluation.evaluating import evaluate as evaluate
    from diffpolicy.evaluation.evaluating import play_episodes as play_episodes
    from diffpolicy.evaluation.intervals import Interval as Interval
    from diffpolicy.evaluation.intervals import difference_interval as difference_interval
    from diffpolicy.evaluation.intervals import has_ratio as has_ratio
    from diffpolicy.evaluation.intervals import mean_interval as mean_interval
    from diffpolicy.evaluation.intervals import pooled_interval as pooled_interval
    from diffpolicy.evaluation.intervals import ratio_interval as ratio_interval
    from diffpolicy.evaluation.intervals import student_t as student_t
    from diffpolicy.evaluation.off_policy import OffPolicyValue as OffPolicyValue
    from diffpolicy.evaluation.off_policy import off_policy_value as off_policy_value
    from diffpolicy.evaluation.playing import Played as Played
    from diffpolicy.evaluation.playing import play as play
    from diffpolicy.evaluation.playing import undisturbed as undisturbed
    from diffpolicy.evaluation.results import Costs as Costs
    from diffpolicy.evaluation.results import Result as Result

attach(
    __name__,
    {
        "Interval": "diffpolicy.evaluation.intervals",
        "OffPolicyValue": "diffpolicy.evaluation.off_policy",
        "off_policy_value": "diffpolicy.evaluation.off_policy",
        "Played": "diffpolicy.evaluation.playing",
        "difference_interval": "diffpolicy.evaluation.intervals",
        "has_ratio": "diffpolicy.evaluation.intervals",
        "mean_interval": "diffpolicy.evaluation.intervals",
        "play": "diffpolicy.evaluation.playing",
        "pooled_interval": "diffpolicy.evaluation.intervals",
        "ratio_interval": "diffpolicy.evaluation.intervals",
        "student_t": "diffpolicy.evaluation.intervals",
        "undisturbed": "diffpolicy.evaluation.playing",
        "Costs": "diffpolicy.evaluation.results",
        "Result": "diffpolicy.evaluation.results",
        "Evaluation": "diffpolicy.evaluation.evaluating",
        "evaluate": "diffpolicy.evaluation.evaluating",
        "play_episodes": "diffpolicy.evaluation.evaluating",
        "make_policy": "diffpolicy.environments.entrants",
    },
)
__all__ = (
    "Costs",
    "Evaluation",
    "Interval",
    "OffPolicyValue",
    "Played",
    "Result",
    "difference_interval",
    "evaluate",
    "has_ratio",
    "make_policy",
    "mean_interval",
    "off_policy_value",
    "play",
    "play_episodes",
    "pooled_interval",
    "ratio_interval",
    "student_t",
    "undisturbed",
)
