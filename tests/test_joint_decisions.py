"""One decision of a station's slot, and of all held requests: searches and matchings, and what they stand beside."""

import csv
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from diffpolicy.edge import make_policy
from diffpolicy.edge.dispatch import Held, Moment, ShortestFirst, simulate
from diffpolicy.edge.evaluation import play_episodes
from toys import small

pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])


def by_hand(alone, service, slope, chosen):
    """J, sibling by sibling."""
    total = sum(alone[i, a] for i, a in enumerate(chosen))
    for i, a in enumerate(chosen):
        total += sum(service[j, a] * (1 + slope[a] * service[i, a]) for j in range(i) if chosen[j] == a)
    return total


def test_searches_find_the_best_of_all_assignments_of_a_few_tasks():
    import joint_search as search

    rng = np.random.default_rng(0)
    left = np.zeros(3)
    for _ in range(20):
        turn = rng.random((5, 3)), rng.random((5, 3)), rng.random(3)
        best = search.tried_all(*turn)
        least = search.cost_s(*turn, best)
        assert least == pytest.approx(by_hand(*turn, best))
        wide = search.best_of_beam(*turn, 3**4)  # as many as there are partial assignments
        assert search.cost_s(*turn, wide) == pytest.approx(least)
        found = [search.apart(*turn), search.in_order(*turn), search.searched(*turn, 20)]
        left += [search.cost_s(*turn, x) - least for x in found]
        assert (search.best_of_beam(*turn, 1) == found[1]).all()
    assert left[0] > left[1] > 20 * left[2] + 1e-6


def test_the_least_over_product_laws_is_reached_without_chance():
    import joint_search as search

    rng = np.random.default_rng(1)
    turn = rng.random((4, 3)), rng.random((4, 3)), rng.random(3)
    every = np.array(list(np.ndindex(3, 3, 3, 3)))
    costs = np.array([by_hand(*turn, x) for x in every])
    for _ in range(20):
        chances = rng.dirichlet(np.full(3, 0.3), 4)
        expected = chances[np.arange(4), every].prod(-1) @ costs
        assert expected >= search.cost_s(*turn, search.tried_all(*turn)) - 1e-12


def test_matchings_are_the_best_there_are():
    import joint_matching as held

    rng = np.random.default_rng(2)
    for _ in range(20):
        cost = rng.random((3, 5))
        found = held.matching(cost)
        assert len(set(found)) == 3
        best = min(cost[range(3), list(x)].sum() for x in permutations(range(5), 3))
        assert cost[range(3), found].sum() == pytest.approx(best)
        service, starts = rng.random((3, 2)), rng.random(2)
        server, place = held.planned(service, starts)

        def ends(lists, service=service, starts=starts):
            return sum((starts[j] + np.cumsum([service[i, j] for i in x])).sum() for j, x in enumerate(lists))

        mine = [sorted(np.flatnonzero(server == j), key=lambda i: -place[i]) for j in range(2)]
        assert ends(mine) == pytest.approx(min(ends((x[:k], x[k:])) for x in permutations(range(3)) for k in range(4)))


def test_with_one_free_server_a_matching_is_the_order_itself():
    import held
    import joint_matching

    arrivals = held.requests(held.CASES[0], 100, 0)
    one = simulate(arrivals, Held(ShortestFirst(), price=None), compiled=False)
    assert (simulate(arrivals, joint_matching.Together(ShortestFirst())).delay_s == one.delay_s).all()
    moment = Moment.of(service_s=[[4.0, 9.0], [1.0, 9.0]], wait_s=[0.0, 0.0], starts_s=[0.0, 0.0])
    assert joint_matching.Planned().decide(moment) == (1, 0)


def test_stations_that_search_nothing_decide_as_the_bundled_policy():
    import joint_turns

    scenario = small(4, 6, 3)
    turns = []
    rule = joint_turns.TurnRule(watch=lambda *slot: turns.extend(zip(*slot, strict=True)))
    mine = joint_turns.policy_of(scenario, rule)
    theirs = play_episodes(scenario, make_policy("pretrained:stale", scenario), 2).cost
    assert (play_episodes(scenario, mine, 2).cost == theirs).all()
    beam = joint_turns.policy_of(scenario, joint_turns.TurnRule(ahead=True, width=1))
    assert (play_episodes(scenario, beam, 2).cost == theirs).all()
    assert len(turns) == 2 * scenario.slots * len(scenario.stations)
    assert all((slope >= 0).all() and np.isfinite(alone).all() for alone, _, slope in turns)


def test_a_chain_shows_some_tasks_at_a_time_and_a_categorical_all_at_once():
    import joint_arms

    arms = {name: joint_arms.Arm(passes, 3, 0) for name, passes in joint_arms.PASSES.items()}
    rng = np.random.default_rng(3)
    turn = rng.random((5, 3)), np.full((5, 3), 4.0), np.zeros(3)
    passes = []
    for name, arm in arms.items():
        seen = []
        arm.net.register_forward_hook(lambda net, given, out, seen=seen: seen.append(int(given[0][..., :3].sum())))
        (servers,) = arm.decide(*([x] for x in turn))
        assert servers.shape == (5,), name
        passes.append(seen)
    assert passes[0] == [0]
    assert passes[1][0] == 0 < passes[1][-1] <= 5
    assert passes[1] == sorted(passes[1])
    assert len(passes[1]) == 8
    updates, loss = arms["chain"].train([(*turn, np.array([0, 1, 2, 0, 1]))], seconds=0.2)
    assert updates > 0 < loss


@pytest.mark.parametrize(("part", "problem"), [("arms", "50"), ("arms", "fleet"), ("longer", "40")])
def test_arms_are_trained_alike_on_every_problem_and_longer_ones_ten_times(part, problem, monkeypatch, tmp_path):
    import joint_decisions

    trained = []

    def train(arm, turns, seconds):
        trained.append((arm.passes, seconds, [len(chosen) for *_, chosen in turns]))
        return 1, 0.0

    monkeypatch.setattr(joint_decisions.Arm, "train", train)
    file = tmp_path / "found.csv"
    given = ["joint_decisions.py", "--small", "--seeds", "1", "--minutes", "0.01", "--train-episodes", "1"]
    monkeypatch.setattr(sys, "argv", [*given, "--csv", str(file), "--part", part, "--problems", problem])
    joint_decisions.main()
    first, second = trained
    assert {first[0], second[0]} == {1, 8}
    assert first[1:] == second[1:]
    assert first[1] == pytest.approx(0.6 * (10 if part == "longer" else 1))
    found = list(csv.DictReader(file.open()))
    longer = ", longer" if part == "longer" else ""
    arms = [f"categorical{longer}", f"chain{longer}"]
    assert [x["rule"] for x in found] == ["pretrained:stale", "joint search", *arms]
    assert all(x["told"].startswith(f"1 updates of {first[1]:g} s") for x in found[2:])
    lines = {line[2]: line for line in joint_decisions.summary(found)}
    assert lines[arms[0]][6].startswith("1.000"), "an arm stands beside the other one, trained alike"


def test_a_table_goes_on_where_it_was(monkeypatch, tmp_path, capsys):
    import joint_decisions

    file = tmp_path / "found.csv"
    given = ["joint_decisions.py", "--small", "--seeds", "1", "--episodes", "1", "--requests", "50", "--csv", str(file)]
    given += ["--part", "search", "--problems", "25"]
    monkeypatch.setattr(sys, "argv", given)
    joint_decisions.main()
    first = list(csv.DictReader(file.open()))
    assert {x["part"] for x in first} == {"search"}
    monkeypatch.setattr(sys, "argv", [*given, "--part", "held", "--problems", "held_equal"])
    joint_decisions.main()
    again = list(csv.DictReader(file.open()))
    assert again[: len(first)] == first
    assert {x["rule"]: x["ratio"] for x in again if x["part"] == "held"}["shortest first, matched"] == "1.00000"
    assert "joint search" in capsys.readouterr().out
    torch.set_num_threads(1)
