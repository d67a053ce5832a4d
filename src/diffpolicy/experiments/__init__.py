"""Experiments on any problem: names of problems and methods, training."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.experiments.names import make_method as make_method
    from diffpolicy.experiments.names import make_problem as make_problem

__getattr__, __dir__ = attach(
    __name__,
    {"make_method": "diffpolicy.experiments.names", "make_problem": "diffpolicy.experiments.names"},
)
__all__ = ("make_method", "make_problem")
