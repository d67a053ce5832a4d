"""Rules that choose what is no action, or what a mask forbids: refused before they get a row of a table."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, MultiCategorical, OneHot, Unbounded
from torchrl.envs import EnvBase

from diffpolicy import FeedforwardPolicy, check_problem
from diffpolicy.cli.main import main
from diffpolicy.environments import EnvProblem, RandomRule
from diffpolicy.environments.chosen import Choice, check_chosen, choices_of
from diffpolicy.environments.entrants import check_policy
from diffpolicy.errors import InputError
from diffpolicy.experiments import evaluate
from diffpolicy.policies.keys import Keys
from test_keys import Specs
from toys import GuessEnv


def guess(rule, *, mask=False):
    return EnvProblem(lambda batch, seed: GuessEnv(batch, mask=mask), steps=3, rules={"mine": rule}, name="guess")


@pytest.mark.parametrize("number", [-1, 3])
@pytest.mark.parametrize("ask", [check_problem, lambda problem: evaluate(problem, ["mine"], 2)])
def test_a_rule_that_chooses_what_is_no_choice_is_refused(ask, number):
    problem = guess(lambda td: td.set("action", torch.full(td.batch_size, number)))
    with pytest.raises(InputError, match=rf"'action' of .* must be from 0 to 2, got {number} in lane 0"):
        ask(problem)


@pytest.mark.parametrize("ask", [check_problem, lambda problem: evaluate(problem, ["mine"], 2)])
def test_a_rule_that_chooses_what_the_mask_forbids_is_refused(ask):
    problem = guess(lambda td: td.set("action", td["action_mask"].long().argmin(-1)), mask=True)
    with pytest.raises(InputError, match=r"'action' of .* is \d in lane 0, which the mask 'action_mask' forbids"):
        ask(problem)


def test_what_a_mask_allows_nothing_of_is_not_asked():
    env = Specs({"observation": Unbounded((4, 3)), "action_mask": Unbounded((4, 5))}, MultiCategorical([3, 2], (4, 2)))
    action, mask = torch.tensor([[-1, 1], [0, 0], [2, 1], [1, 1]]), torch.tensor([[0, 0, 0, 0, 1]] * 4)
    td = TensorDict(action=action, action_mask=mask, batch_size=4)
    choices = choices_of(env)
    with pytest.raises(InputError, match=r"is 0 \(slot 1\) in lane 1"):
        check_chosen(td, choices, td.batch_size, "mine")
    check_chosen(td, choices, td.batch_size, "mine", torch.tensor([True, False, True, True]))


def test_a_mask_of_another_width_is_refused_by_the_sum_of_choices():
    env = Specs({"observation": Unbounded((4, 3)), "action_mask": Unbounded((4, 6))}, MultiCategorical([3, 2], (4, 2)))
    with pytest.raises(InputError, match=r"'action_mask' .* 3 \+ 2 = 5 at its end, got shape \[4, 6\]"):
        RandomRule(env)


@pytest.mark.parametrize(
    ("spec", "action", "match"),
    [
        (Bounded(-1.0, 1.0, (2, 2)), [[0.0, 1.0], [2.0, 0.0]], "from -1 to 1, got 2 in lane 1"),
        (OneHot(2, (2, 2), dtype=torch.bool), [[True, False], [True, True]], r"one 1 of 2, got \[1, 1\] in lane 1"),
    ],
)
def test_other_kinds_of_action_have_their_range(spec, action, match):
    td = TensorDict(action=torch.tensor(action), batch_size=2)
    with pytest.raises(InputError, match=match):
        check_chosen(td, [Choice("action", spec, None, None)], td.batch_size, "mine")


class Unseeded(EnvBase):
    """It cannot be made: `_set_seed` is lacking."""

    def _reset(self, tensordict=None, **_):
        raise NotImplementedError

    def _step(self, tensordict):
        raise NotImplementedError


def test_an_environment_that_lacks_a_method_is_told_by_its_name():
    with pytest.raises(InputError, match=r"problem Unseeded: the environment is not complete: .*_set_seed"):
        check_problem(EnvProblem(Unseeded))


def broken():
    raise ValueError("the table of rooms is empty\nin rooms.csv")


def test_an_environment_that_cannot_be_made_is_told_in_a_sentence():
    said = "problem broken: to make the environment failed: ValueError: the table of rooms is empty$"
    with pytest.raises(InputError, match=said) as told:
        EnvProblem(broken, steps=3).make_env()
    assert isinstance(told.value.__cause__, ValueError)  # whose traceback shows where


def test_slots_of_one_decision_are_joint_already():
    env = Specs({"observation": Unbounded((4, 3))}, MultiCategorical([3, 2], (4, 2)))
    with pytest.raises(InputError, match="one decision of several slots already; leave items out"):
        Keys.of(env, items="joint")


def test_a_folder_of_seeds_names_them(tmp_path):
    for seed in (2, 10):
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}" / "policy.json").touch()
    with pytest.raises(InputError, match=r"has no policy.json; it has .*seed-2, .*seed-10$"):
        check_policy(str(tmp_path), (), ())


@pytest.mark.parametrize("saved", [False, True])
def test_a_policy_of_another_problem_is_reminded_of_the_option(saved, tmp_path, capsys):
    if saved:
        FeedforwardPolicy.from_specs(GuessEnv()).save(tmp_path)
    assert main(["evaluate", str(tmp_path) if saved else "soonest", "--eval-episodes", "1"]) == 2
    assert "; offloading is the default problem, and --problem names another" in capsys.readouterr().err
