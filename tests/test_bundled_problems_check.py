"""Each problem of the package passes the check that a user's own must pass."""

import pytest

from diffpolicy import check_problem
from diffpolicy.edge import OffloadingProblem, Scenario
from diffpolicy.experiments.problem_names import PROBLEMS, make_problem


@pytest.mark.filterwarnings("error:problem")
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_bundled_problem_passes_the_check(name):
    if name == "offloading":  # whose rules see more than what is decided from by default
        check_problem(OffloadingProblem(Scenario.load("lad-ts").override(stations=3, slots=2, tasks=3)))
    else:
        check_problem(make_problem(name))
