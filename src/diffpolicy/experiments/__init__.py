"""Experiments on any problem: names of problems and methods, training, evaluating, comparing."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.experiments.comparison import Comparison as Comparison
    from diffpolicy.experiments.evaluating import evaluate as evaluate
    from diffpolicy.experiments.method_names import make_method as make_method
    from diffpolicy.experiments.plan import Plan as Plan
    from diffpolicy.experiments.plots import draw as draw
    from diffpolicy.experiments.problem_names import make_problem as make_problem
    from diffpolicy.experiments.run import compare as compare
    from diffpolicy.experiments.training import Trained as Trained
    from diffpolicy.experiments.training import build as build
    from diffpolicy.experiments.training import train as train

attach(
    __name__,
    {
        "Comparison": "diffpolicy.experiments.comparison",
        "Plan": "diffpolicy.experiments.plan",
        "Trained": "diffpolicy.experiments.training",
        "build": "diffpolicy.experiments.training",
        "compare": "diffpolicy.experiments.run",
        "draw": "diffpolicy.experiments.plots",
        "evaluate": "diffpolicy.experiments.evaluating",
        "make_method": "diffpolicy.experiments.method_names",
        "make_problem": "diffpolicy.experiments.problem_names",
        "train": "diffpolicy.experiments.training",
    },
)
__all__ = (
    "Comparison",
    "Plan",
    "Trained",
    "build",
    "compare",
    "draw",
    "evaluate",
    "make_method",
    "make_problem",
    "train",
)
