"""Policies of other problems and fleets, and what is said of them."""

import pytest

from diffpolicy import DiffusionPolicy
from diffpolicy.edge import OffloadingEnv, Scenario
from diffpolicy.edge.problem import OffloadingProblem
from diffpolicy.edge.serving.learned import LearnedChoice
from diffpolicy.errors import InputError
from test_mistaken_kinds import Halls
from toys import small


def test_a_joint_policy_of_another_problem_is_told_in_items_and_choices(tmp_path):
    policy = DiffusionPolicy.from_specs(OffloadingEnv(small(2, 3, 4), [1]), items="joint")
    policy.trained = {"problem": "shop"}
    problem = OffloadingProblem(Scenario.load("lad-ts"))
    with pytest.raises(InputError) as refused:
        problem.check(policy, problem.make_env(1))
    told = str(refused.value)
    assert "made for 3 items that are decided together, 2 choices each, and the environment has 50 items" in told
    assert told.endswith("it was trained on problem shop, and this is scenario lad-ts")


@pytest.mark.parametrize("trained", [{"scenario": "lad-ts"}, {"problem": "lad-ts"}])
def test_a_policy_of_another_fleet_is_told_how_many_servers_it_was_made_for(trained):
    problem = OffloadingProblem(Scenario.load("lad-ts"))
    policy = DiffusionPolicy.from_specs(problem.vary("stations", 8).make_env(1))
    policy.trained = trained
    with pytest.raises(InputError, match=r"made for 8 servers, and scenario lad-ts has 20; .* with --stations 8"):
        problem.check(policy, problem.make_env(1))


def test_serve_says_that_a_policy_is_of_another_problem(tmp_path):
    policy = DiffusionPolicy.from_specs(Halls(1))
    policy.trained = {"problem": "shop"}
    policy.save(tmp_path / "shop")
    with pytest.raises(
        InputError, match=r"shop is for problem shop, and serve takes those for offloading: .* Exported"
    ):
        LearnedChoice(str(tmp_path / "shop"), 2)
