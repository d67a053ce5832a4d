"""What fleet rules learn of arrivals: chances, sizes, and whether stations come in turn or mixed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffpolicy.edge import OffloadingEnv, Scenario, TaskList, make_policy, replay
from diffpolicy.edge.physics.file_steps import spans_of
from diffpolicy.edge.physics.queueing import SlotTasks
from diffpolicy.edge.pricing import heard, imagined
from diffpolicy.edge.pricing.heard import Heard
from diffpolicy.edge.pricing.policy import FleetPolicy
from diffpolicy.edge.pricing.slot import turns
from diffpolicy.edge.pricing.state import FleetState
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.policies.recurrent import with_recurrent_state
from test_fleet import lively, small


def test_spans_tell_stations_in_turn_from_mixed_ones() -> None:
    step = np.repeat([0, 1, 2], [5, 5, 3])
    station = np.array([0, 0, 1, 1, 1, 0, 1, 0, 1, 1, 0, 0, 0])
    spans = spans_of(step, station, 3, 2)
    # step 1: one of the others' three between 0's two, one of the others' two between 1's three
    assert spans[0].tolist() == [0, 0]
    assert spans[1].tolist() == pytest.approx([1 / 3, 1 / 2])
    assert np.isnan(spans[2]).all()
    rng = np.random.default_rng(0)
    number, stations = 20_000, 10
    step, station = np.repeat(np.arange(200), 100), rng.integers(0, stations, number)
    mean = np.nanmean(spans_of(step, station, 200, stations))
    assert mean == pytest.approx(1 - 2 * np.mean(1 / (1 + rng.binomial(100, 1 / stations, 9999))), abs=0.02)
    told = heard.span_learned(torch.zeros(2, 2), torch.tensor([[0.0, 0.0, -1.0], [0.9, 0.8, -1.0]]))
    assert told[:, 1].tolist() == [2, 2]
    assert heard.mixed(told).tolist() == [False, True]


def test_what_is_left_where_stations_come_mixed() -> None:
    """Half of what is usual less what came, half of it in the measure in which the station itself has tasks left."""
    valid = torch.tensor([[[True, True, True], [True, False, False]]])
    order, mu = torch.tensor([[0, 3, 1, 2]]), torch.tensor([[4.0]], dtype=torch.float64)
    turn, left = turns(order, valid, mu, torch.tensor([True]))
    expected = torch.tensor([(7 + 8 * 2 / 3) / 2, 6 / 2, (5 + 8 / 3) / 2, 4 / 2], dtype=torch.float64)
    assert torch.allclose(left[0], expected / 8, rtol=1e-15)
    assert torch.allclose(turn[0], torch.arange(1, 5) / (torch.arange(1, 5) + expected), rtol=1e-15)
    in_turn = turns(order, valid, mu, torch.tensor([False]))[1]
    assert torch.allclose(in_turn[0] * 8, torch.tensor([2 + 4.0, 0, 1, 0], dtype=torch.float64))


def tasks_of_counts(counts: list[list[int]], n: int) -> SlotTasks:
    valid = torch.arange(n) < torch.tensor(counts).unsqueeze(-1)
    number = torch.arange(valid.numel(), dtype=torch.float64).view(valid.shape) + 1
    return SlotTasks(torch.zeros(valid.shape, dtype=torch.int64), number, 10 * number, 100 * number, valid)


def test_chances_are_those_told_until_enough_was_heard() -> None:
    zero = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    start = Heard(zero[:, 0, :, 0], zero[:, 0, :1, 0], zero, zero[..., 0])
    told = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    assert torch.equal(start.chances(told, 4.0)[0], told)
    assert start.chances(None, 4.0).sum() == 0
    seen = tasks_of_counts([[2, 1]], 3)
    after = start.learned(seen, None).learned(seen, torch.tensor([[True, False]]))
    assert after.slots.tolist() == [[3]]
    assert after.chances(told, 4.0)[0].tolist() == pytest.approx([(4 + 4) / 7, (2 + 2) / 7, 1 / 7])
    tasks, chance = after.imagined(None, seen.origin[..., :1], False)
    assert torch.equal(chance, after.chances(None, 1.0))
    works = tasks.work_gcycles[0]
    # the last heard, and the mean of all that were heard where there was none
    assert works.tolist() == [[100, 200, 700 / 3], [400, 700 / 3, 700 / 3]]
    alone = start.learned(tasks_of_counts([[0, 2]], 3), torch.tensor([[False, True]]))
    law = tasks_of_counts([[2, 2]], 2), told[:2]
    tasks, chance = alone.imagined(law, seen.origin[..., :1], True)
    assert chance[0].tolist() == pytest.approx([(1 + 1) / 2, (0.5 + 1) / 2, 0])
    assert tasks.work_gcycles[0].tolist() == [[400, 500, 450], [400, 500, 450]]


@pytest.mark.parametrize("information", ["private", "stale"])
def test_a_private_station_never_learns_what_the_others_had(information: str) -> None:
    scenario = small()
    policy = lively(FleetPolicy(information=information)).for_scenario(scenario)
    env = with_recurrent_state(OffloadingEnv(scenario, [2], information=information, dtype=torch.float64), policy)
    first = env.reset()
    second = first.clone()
    others = [0, 2, 3]
    for name, factor in (("input_mbit", 3), ("work_gcycles", 9)):
        second["agents", name][:, others] *= factor
    second["agents", "valid"][:, others] = True
    later, actions = env.rand_step(first.clone())["next"], []
    for begin in (first, second):
        td = later.clone()
        td["fleet"] = policy(begin.clone())["next", "fleet"]
        actions.append(policy(td)["agents", "action"][:, 1])
    assert torch.equal(*actions) == (information == "private")


@pytest.mark.parametrize("name", ["private", "stale"])
def test_nobody_learns_in_a_slot_who_has_nothing_in_it(name: str, tmp_path) -> None:
    scenario = Scenario.load("lad-ts")
    tasks = tasks_file(tmp_path, scenario.override(tasks=6, slots=2), 5, False)
    known = ~((tasks.slot == 1) & (tasks.origin == 0))
    lines = (tmp_path / "tasks.csv").read_text().split("\n")
    (tmp_path / "less.csv").write_text("\n".join([lines[0], *np.array(lines[1:])[known]]))
    less = TaskList.read(tmp_path / "less.csv", scenario)
    before = replay(scenario, tasks, make_policy(f"pretrained:{name}", scenario)).server
    after = replay(scenario, less, make_policy(f"pretrained:{name}", scenario)).server
    assert (before[known] == after).all()


def test_without_a_law_an_idle_station_knows_nothing_of_the_works_of_others() -> None:
    scenario = small()
    policy = lively(FleetPolicy(information="private"))
    env = with_recurrent_state(OffloadingEnv(scenario, [1], information="private", dtype=torch.float64), policy)
    first = env.reset()
    first["agents", "valid"][:, 2] = False
    second = first.clone()
    second["agents", "work_gcycles"][:, 0] *= 9
    remembered = [policy(td)["next", "fleet"][:, 2] for td in (first, second)]
    assert all(torch.equal(*(x[name] for x in remembered)) for name in ("tasks", "work", "latent", "load"))


def test_other_information_reads_measured_times_as_before() -> None:
    scenario = Scenario.load("gpu-mix")
    policy = make_policy("pretrained:stale", scenario)
    assert ("agents", "service_s") in policy.with_information("private").in_keys


def test_slots_in_turn_and_mixed_are_decided_beside_each_other() -> None:
    scenario = small()
    policy = lively(FleetPolicy(information="stale")).for_scenario(scenario)
    env = with_recurrent_state(OffloadingEnv(scenario, [3], information="stale", dtype=torch.float64), policy)
    td = env.reset()
    spans = torch.tensor([[0.0, 4.0], [3.0, 4.0], [0.0, 4.0]], dtype=torch.float64)
    td["fleet", "spans"] = spans
    together = policy(td.clone())
    for e in range(3):
        alone = policy(td[e : e + 1].clone())
        real = td["agents", "valid"][e]
        assert torch.equal(alone["agents", "action"][0][real], together["agents", "action"][e][real])
        for name, value in alone["next", "fleet"].items():
            assert torch.allclose(value[0], together["next", "fleet", name][e], rtol=1e-12), name
    td["fleet", "spans"] = 0 * spans
    assert not torch.equal(policy(td)["agents", "action"][1], together["agents", "action"][1])


def test_a_station_does_not_imagine_that_others_react_to_tasks_they_do_not_know_of(monkeypatch) -> None:
    scenario, seen = small(), []
    policy = lively(FleetPolicy(information="stale")).for_scenario(scenario)
    env = with_recurrent_state(OffloadingEnv(scenario, [2], information="stale", dtype=torch.float64), policy)
    td = env.reset()
    td["fleet", "spans"] = td["fleet", "spans"] + 1
    td["agents", "work_gcycles"] *= 50
    place = FleetState.place

    def spied(state, queue, coefficients, **given):
        decisions, *rest = place(state, queue, coefficients, **given)
        seen.append(queue.delay_s.gather(-1, decisions.unsqueeze(-1)).squeeze(-1))
        return decisions, *rest

    monkeypatch.setattr(FleetState, "place", spied)
    policy(td)
    common, each = (
        seen  # delays of all tasks that may come where they go: as all imagine the slot, as each station does
    )
    stations, tasks = td["agents", "valid"].shape[1], common.shape[1] // td["agents", "valid"].shape[1]
    for row, delays in enumerate(each):
        assert torch.isin(delays, common[row // stations]).sum() >= (stations - 1) * tasks


def test_tasks_are_in_the_round_in_which_their_share_of_the_slot_comes() -> None:
    n = 2 * imagined.ROUNDS
    places = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    assert imagined.rounds(places).tolist() == [i // 2 for i in range(n)]
    assert imagined.rounds(torch.tensor([1.0, 1.2])).tolist() == [imagined.ROUNDS - 1] * 2


@pytest.mark.parametrize(("tasks", "most"), [(25, 0.91), (40, 1.0)])
def test_mixed_stations_that_imagine_the_slot_do_better_than_greedy_ones_that_see_it(tasks, most, tmp_path) -> None:
    scenario = Scenario.load("lad-ts")
    given = tasks_file(tmp_path, scenario.override(tasks=tasks, slots=30), 5, True)
    delay_s = [
        replay(scenario, given, make_policy(name, scenario)).delay_s.mean() for name in ("pretrained:stale", "opt-ts")
    ]
    assert delay_s[0] < most * delay_s[1]


def test_blocks_of_stations_change_nothing(monkeypatch) -> None:
    scenario = small()
    policy = lively(FleetPolicy(information="private", candidates=2)).for_scenario(scenario)
    env = with_recurrent_state(OffloadingEnv(scenario, [2], information="private", dtype=torch.float64), policy)
    td = env.reset()
    td["fleet", "spans"] = td["fleet", "spans"] + 1
    policy.generator.manual_seed(3)
    before = policy(td.clone())["agents", "action"]
    monkeypatch.setattr(imagined, "CELLS", 1)
    policy.generator.manual_seed(3)
    assert torch.equal(policy(td.clone())["agents", "action"], before)


def tasks_file(tmp_path, scenario: Scenario, seed: int, mixed: bool) -> TaskList:
    law, stations = scenario.workload, len(scenario.stations)
    rng, lines = np.random.default_rng(seed), ["slot,origin,input_mbit,result_mbit,gcycles_per_step,steps"]
    for t in range(scenario.slots or 0):
        drawn = law.draw(seed, Stream.EVALUATION, 0, t, stations)
        origin = np.repeat(np.arange(stations), drawn.counts)
        origin, had = rng.permutation(origin) if mixed else origin, [0] * stations
        for b in origin:
            i, had[b] = had[b], had[b] + 1
            sizes = drawn.input_mbit[b, i], drawn.result_mbit[b, i], law.gcycles_per_step[i], law.steps[i]
            lines.append(",".join(map(str, (t, b, *sizes))))
    (tmp_path / "tasks.csv").write_text("\n".join(lines))
    return TaskList.read(tmp_path / "tasks.csv", scenario)


@pytest.mark.parametrize(("name", "mixed"), [("stale", False), ("private", False), ("live", True)])
def test_what_was_told_wrongly_is_corrected(name: str, mixed: bool, tmp_path) -> None:
    scenario = Scenario.load("lad-ts")
    tasks = tasks_file(tmp_path, scenario.override(tasks=25, slots=15), 5, mixed)
    learns = make_policy(f"pretrained:{name}", scenario)
    told = make_policy(f"pretrained:{name}", scenario)
    told.rule.learns = False
    told._declare(measured=False)
    delay_s = [replay(scenario, tasks, policy).delay_s.mean() for policy in (learns, told)]
    assert delay_s[0] < 0.97 * delay_s[1]


def test_stations_act_where_no_law_was_told(tmp_path) -> None:
    scenario = Scenario.load("lad-ts")
    tasks = tasks_file(tmp_path, scenario.override(tasks=25, slots=10), 5, False)
    policy = make_policy("pretrained:stale", scenario)
    policy.rule.told = replace(policy.rule.told, workload=None)
    greedy = replay(scenario, tasks, make_policy("opt-ts", scenario)).delay_s.mean()
    assert replay(scenario, tasks, policy).delay_s.mean() < greedy
