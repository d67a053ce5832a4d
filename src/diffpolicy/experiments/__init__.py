"""Experiments on any problem: names of problems and methods, training."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.experiments.names import make_method as make_method
    from diffpolicy.experiments.names import make_problem as make_problem
    from diffpolicy.experiments.training import build as build
    from diffpolicy.experiments.training import train as train

__getattr__, __dir__ = attach(
    __name__,
    {
        "build": "diffpolicy.experiments.training",
        "make_method": "diffpolicy.experiments.names",
        "make_problem": "diffpolicy.experiments.names",
        "train": "diffpolicy.experiments.training",
    },
)
__all__ = ("build", "make_method", "make_problem", "train")
