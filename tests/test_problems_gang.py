"""Gang scheduling: quality, who works with whom, that the clock goes from event to event, and its rules."""

import math

import pytest
import torch

from diffpolicy.environments import RandomRule
from diffpolicy.environments.entrants import rules_of
from diffpolicy.evaluation import play
from diffpolicy.experiments import make_problem
from diffpolicy.problems.gang import QUEUE, STEPS, TASKS, duration_s, launches, quality


def begun(seed=0, lanes=1, **knobs):
    env = make_problem("gang").make_env(lanes, seed)
    for name, value in knobs.items():
        setattr(env, name, value)
    return env, env.reset()


def launch(env, td, place, steps=20):
    return env.step(td.set("action", torch.tensor([[place, STEPS.index(steps)]])))["next"]


def test_quality_is_that_of_the_paper():
    assert quality(torch.tensor([2.0, 4.0])).tolist() == [0.0, 0.0]
    assert quality(torch.tensor(6.0)).item() == pytest.approx(0.14)
    assert quality(torch.tensor([30.0, 32.0])).tolist() == pytest.approx(
        [0.16 * math.log(30) / math.log(6) - 0.02, 0.27]
    )


def test_a_group_that_is_there_saves_the_loading():
    size = torch.tensor([1.0, 2.0, 4.0, 8.0])
    saved = duration_s(size, torch.tensor(20.0), torch.tensor(False)) - duration_s(
        size, torch.tensor(20.0), torch.tensor(True)
    )
    assert saved.tolist() == pytest.approx([24, 24, 32, 30])
    assert duration_s(size, torch.tensor(20.0), torch.tensor(True)).tolist() == pytest.approx([6.3, 3.125, 2.8, 2.0])


def test_every_task_is_launched_once_on_as_many_servers_as_it_needs():
    env, td = begun(seed=3, lanes=16)
    rule, going = RandomRule(env, 1), torch.ones(16, dtype=torch.bool)
    for _ in range(env.steps):
        before, clock = env.state.clone(), env.state["clock_s"].clone()
        td = env.step(rule(td))["next"]
        fresh = env.state["launched"] & ~before["launched"]
        assert (fresh.sum(-1) <= 1).all()
        needed = (env.drawn["size"] * fresh).sum(-1)
        used = (env.state["until_s"] != before["until_s"]).sum(-1)
        assert torch.equal(used[going], needed[going].long())
        assert (before["until_s"] <= clock)[env.state["until_s"] != before["until_s"]].all()
        assert (env.state["clock_s"] >= clock).all()
        going &= ~td["terminated"].squeeze(-1)
        if not going.any():
            break
    assert env.state["launched"].all()


def test_a_group_stays_warm_until_one_of_its_servers_is_taken():
    env, td = begun()
    env.drawn["size"] = torch.ones(1, TASKS).index_fill(1, torch.tensor([1]), 2.0)
    td = launch(env, td, 0)  # size 1, cold, server 0
    td = launch(env, td, 0)  # size 2, cold, servers 1 and 2
    assert env.state["group"].tolist() == [[1, 2, 2, 0]]
    td = launch(env, td, 0)  # size 1, on server 3
    assert env.state["group"].tolist() == [[1, 2, 2, 3]]
    first_end = env.state["until_s"].amin().item()
    assert env.state["clock_s"].item() == pytest.approx(first_end)  # nothing fitted until then
    assert first_end == pytest.approx(24 + 2 * 20 * 0.15625 / 2)
    td = launch(env, td, 0)  # size 1, no free group of one: takes server 1 of the pair, which is broken
    assert env.state["group"].tolist() == [[1, 4, 0, 3]]


def test_an_action_mask_allows_what_fits_and_waiting_only_for_something():
    env, td = begun(seed=1, lanes=32)
    rule = RandomRule(env, 2)
    for _ in range(30):
        mask, choices = td["action_mask"], env._choices()
        assert torch.equal(mask[:, :QUEUE], choices["fits"])
        assert mask[:, QUEUE + 1 :].all()
        going = ~td["done"].squeeze(-1)
        assert mask[going, :QUEUE].any(-1).all()  # the clock went on until something fitted
        assert torch.equal(mask[going, QUEUE], env._next_event().isfinite().squeeze(-1)[going])
        td = env.step(rule(td))["next"]


def test_the_rules_read_rewards_off_what_is_shown():
    env, td = begun(seed=5, lanes=8)
    problem = make_problem("gang")
    greedy = rules_of(problem)["greedy"](0)
    for _ in range(20):
        gain = launches(td["observation"], env.servers)
        td = greedy(td)
        place, steps = td["action"].unbind(-1)
        told = gain[torch.arange(8), place.clamp_max(QUEUE - 1), steps]
        td = env.step(td)["next"]
        assert torch.allclose(td["reward"].squeeze(-1), torch.where(place < QUEUE, told, 0.0), rtol=1e-4)


def test_to_keep_groups_warm_beats_greed():
    problem = make_problem("gang")
    cost = {
        name: play(problem.make_episodes(0, 24), rules_of(problem)[name](0), 96, per="episode").cost.mean()
        for name in ("greedy", "warm-first", "random")
    }
    assert cost["warm-first"] < cost["greedy"] < cost["random"]
