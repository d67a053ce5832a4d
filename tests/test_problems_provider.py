"""Provider selection: utilities, crashes, and the figures of its rules."""

import pytest
import torch

from diffpolicy.environments.entrants import rules_of
from diffpolicy.evaluation import play
from diffpolicy.experiments import make_problem
from diffpolicy.problems.provider_selection import PLACES, PROVIDERS, Providers, ProviderSelection, runtime_s


def test_runtimes_are_those_of_the_paper():
    assert runtime_s(torch.tensor([100.0, 250.0])).tolist() == pytest.approx([14760, 40410])


def test_utility_rises_between_two_points():
    providers = Providers.drawn(3)
    steps = torch.arange(0, 400, 5.0)
    utility = providers.utility(steps)
    assert (utility.diff(dim=0) >= 0).all()
    assert (utility[steps.unsqueeze(-1) <= providers.low_steps] == 0).all()
    assert torch.allclose(utility[-1], providers.rise)
    middle = providers.utility((providers.low_steps + providers.high_steps) / 2).diagonal()
    assert torch.allclose(middle, providers.rise / 2)


def test_room_is_taken_and_given_back_and_a_full_provider_crashes():
    env = ProviderSelection(0).make_env(1, seed=0)
    td = env.reset()
    capacity, lost, now = float(env.providers.capacity[0]), [], 0.0
    for _ in range(200):
        now, steps = float(env._of_now("time_s")), float(env._of_now("steps"))
        room = float(env._available()[0, 0])
        running = [(a, b, t) for a, b, t in lost if b > now]
        assert room == pytest.approx(capacity - sum(t for *_, t in running))
        td = env.step(td.set("action", torch.tensor([0])))["next"]
        if steps <= room:
            lost = [*running, (now, now + float(runtime_s(torch.tensor(steps))), steps)]
            assert td["reward"].item() == pytest.approx(float(env.providers.utility(torch.tensor([steps]))[0, 0]))
        else:
            left = sum((b - now) / (b - a) for a, b, _ in running)
            assert td["reward"].item() == pytest.approx(-2 - 2 * left, rel=1e-4)
            lost = []
    assert PLACES * 100 >= 900


def test_a_task_more_than_fits_into_the_places_is_never_taken():
    env = ProviderSelection(2).make_env(4, seed=1)
    td = env.reset()
    for k in range(300):
        td = env.step(td.set("action", torch.full((4,), k % PROVIDERS)))["next"]
        assert (env._available() >= 0).all()


def test_the_rules_stand_in_the_order_of_the_paper():
    problem = make_problem("provider-selection")

    def cost(rule):
        return play(problem.make_episodes(0, 8), rules_of(problem)[rule](0), 150, per="episode").cost.mean()

    gain = {name: -cost(name) for name in rules_of(problem)}
    order = ["random", "round-robin", "most-available", "available-times-quality", "clairvoyant"]
    assert sorted(gain, key=gain.get) == order
    assert gain["random"] < 0 < gain["round-robin"]
