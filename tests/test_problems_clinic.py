"""The clinic: its law of patients, its mask, its best rule, and what a reset and a state keep."""

import pytest
import torch

from diffpolicy import check_problem
from diffpolicy.environments import RandomRule
from diffpolicy.evaluation import evaluate, play
from diffpolicy.experiments import make_problem
from diffpolicy.problems.clinic import ARRIVAL, DONE, PRICE, Clinic, dearest_first, longest_queue


def test_it_is_a_sound_problem_by_name():
    problem = make_problem("clinic")
    check_problem(problem)
    assert (problem.name, problem.steps, next(iter(problem.rules()))) == ("clinic", 50, "longest-queue")


def test_patients_come_and_leave_by_their_chances():
    env = Clinic(20_000, seed=3)
    for kind in range(3):
        td = env.reset().set("action", torch.full((20_000,), kind))
        before = td["observation"]
        after = env.step(td)["next", "observation"]
        expected = before[0] + ARRIVAL - DONE * (torch.arange(3) == kind)
        assert torch.allclose(after.mean(0), expected, atol=0.02)
        td = env.step(td.set("action", torch.full((20_000,), kind)))
        assert torch.equal(td["next", "reward"].squeeze(-1), -(td["next", "observation"] * PRICE).sum(-1))


def test_the_mask_says_who_waits_and_never_forbids_all():
    env = Clinic(64, seed=1)
    td = env.reset()
    for _ in range(50):
        mask, waiting = td["action_mask"], td["observation"] > 0
        assert mask.any(-1).all()
        assert torch.equal(mask[waiting.any(-1)], waiting[waiting.any(-1)])
        assert mask.gather(-1, longest_queue(td.clone())["action"].unsqueeze(-1)).all()
        td = env.step_mdp(env.step(dearest_first(td)))
    assert "action_mask" not in Clinic(2, masked=False).reset()


def test_the_best_rule_is_best():
    policies = {"best": dearest_first, "random": RandomRule(Clinic(1), seed=4), "longest": longest_queue}
    costs = {name: play(Clinic(256, seed=1), policy, 50, per="step").cost.mean() for name, policy in policies.items()}
    assert costs["best"] < costs["random"] < costs["longest"]


def test_a_lane_that_is_asked_begins_anew_alone():
    env = Clinic(3, seed=2)
    td = env.rollout(7, dearest_first)[:, -1]["next"]
    before = td["observation"].clone()
    again = env.reset(td.set("_reset", torch.tensor([[False], [True], [False]])))
    assert torch.equal(again["observation"][1], torch.full((3,), 4.0))
    assert torch.equal(again["observation"][[0, 2]], before[[0, 2]])
    assert env.minute.flatten().tolist() == [7, 0, 7]


def test_a_saved_state_goes_on_as_it_would_have():
    env, other = Clinic(4, seed=5), Clinic(4, seed=6)
    env.rollout(9, dearest_first)
    other.reset()
    other.set_extra_state(env.get_extra_state())
    step = torch.tensor([0, 1, 2, 0])
    first, second = (e.step(e._now().set("action", step))["next", "observation"] for e in (env, other))
    assert torch.equal(first, second)


@pytest.mark.slow
def test_a_policy_learns_it():
    """Shows that 256 episodes bring `d2sac` nearer to the best rule than to random choices."""
    from diffpolicy.experiments import train

    run = train("clinic", "d2sac", episodes=256, environments=32)
    result = evaluate(make_problem("clinic"), {"d2sac": run.policy}, episodes=64, baseline="dearest-first").results
    assert result["d2sac"].ratio < 1.3
