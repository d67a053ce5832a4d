"""The evaluation protocol: identical arrivals, intervals, and figures that the plain loops give too."""

import numpy as np
import pytest
import torch

import oracle
from diffpolicy import ActionMemory, DiffusionPolicy, InputError
from diffpolicy.edge import (
    Delays,
    OffloadingEnv,
    Scenario,
    Server,
    Stream,
    Workload,
    evaluate,
    make_policy,
    play_episodes,
)
from diffpolicy.edge.names import HEURISTIC_NAMES
from diffpolicy.edge.problem import WORK
from diffpolicy.evaluation import Played, mean_interval, ratio_interval, student_t
from diffpolicy.evaluation import evaluating as protocol

DRAWING = ["random", "capacity-proportional", "power-of-two"]


def by_hand(scenario, episode, decide, seed=0):
    """Delays of an episode by the plain loops, and the work that arrived."""
    tasks = []
    for t in range(scenario.slots):
        drawn = scenario.workload.draw(seed, Stream.EVALUATION, episode, t, len(scenario.stations))
        for b, home in enumerate(scenario.stations):
            for n in range(drawn.counts[b]):
                sizes = (x[b, n] for x in (drawn.input_mbit, drawn.result_mbit, drawn.work_gcycles))
                tasks.append(oracle.Task(t, home, *sizes))
    f, v = zip(*((s.capacity_gcycles_per_s, s.rate_mbit_per_s) for s in scenario.servers), strict=True)
    _, delays, _ = oracle.simulate(tasks, f, v, [scenario.slot_s] * scenario.slots, decide)
    return delays, sum(task.w for task in tasks)


# Figures


def test_opt_ts_has_the_figures_of_the_plain_loops(scenario):
    result = evaluate(["opt-ts"], scenario, episodes=6, seed=3)
    episodes, work = zip(*(by_hand(scenario, k, oracle.greedy, seed=3) for k in range(6)), strict=True)
    pooled = np.concatenate(episodes)
    sums, counts = np.array([np.sum(x) for x in episodes]), np.array([len(x) for x in episodes])
    residuals = (sums - pooled.mean() * counts) / counts.mean()
    d = result.results["opt-ts"].delays
    assert d.tasks == len(pooled)
    assert d.mean_delay_s == pytest.approx(pooled.mean())
    assert d.max_delay_s == pytest.approx(pooled.max())
    np.testing.assert_allclose([d.p50_delay_s, d.p95_delay_s, d.p99_delay_s], np.percentile(pooled, [50, 95, 99]))
    assert result.results["opt-ts"].ci95_s == pytest.approx(2.5706 * residuals.std(ddof=1) / 6**0.5, rel=1e-4)
    assert result.load == pytest.approx(sum(work) / (19 * 0.5 * 5 * 6))


def test_the_ratio_is_of_pooled_means_and_paired_over_episodes(scenario):
    result = evaluate(["opt-ts", "local"], scenario, episodes=5).results["local"]
    episodes = [by_hand(scenario, k, oracle.greedy)[0] for k in range(5)]
    stations = [
        [b for t in range(5) for b in range(3) for _ in range(scenario.workload.draw(0, 0, k, t, 3).counts[b])]
        for k in range(5)
    ]
    local = [by_hand(scenario, k, lambda i, costs, k=k: stations[k][i])[0] for k in range(5)]
    ratio = np.concatenate(local).mean() / np.concatenate(episodes).mean()
    a, b = (np.array([np.sum(x) for x in part]) for part in (local, episodes))
    half = 2.7764 * ((a - ratio * b) / b.mean()).std(ddof=1) / 5**0.5
    assert result.ratio == pytest.approx(ratio)
    np.testing.assert_allclose(result.ratio_ci95, [ratio - half, ratio + half], rtol=1e-4)


@pytest.mark.parametrize("baseline", ["opt-ts", "random", "round-robin"])
def test_the_ratio_of_the_baseline_to_itself_is_exactly_one(scenario, baseline):
    result = evaluate(["opt-ts", "random", "round-robin"], scenario, episodes=4, baseline=baseline).results[baseline]
    assert result.ratio == 1.0
    assert result.ratio_ci95 == (1.0, 1.0)


def test_a_baseline_that_is_not_listed_is_played_and_not_reported(scenario):
    both = evaluate(["local", "opt-ts"], scenario, episodes=3)
    alone = evaluate(["local"], scenario, episodes=3)
    assert list(alone.results) == ["local"]
    assert alone.results["local"].ratio == both.results["local"].ratio
    assert alone.load == both.load


def test_one_episode_has_no_intervals(scenario):
    result = evaluate(["opt-ts", "local"], scenario, episodes=1).results["local"]
    assert result.ci95_s is None
    assert result.ratio_ci95 is None
    assert result.ratio > 0


def test_all_policies_meet_the_same_tasks(scenario):
    played = [play_episodes(scenario, make_policy(name, scenario), 3) for name in HEURISTIC_NAMES]
    for other in played[1:]:
        np.testing.assert_array_equal(other.notes[str(WORK)], played[0].notes[str(WORK)])
        np.testing.assert_array_equal(other.episode, played[0].episode)


def test_a_result_does_not_depend_on_the_company_or_on_order(scenario):
    names = ["random", "power-of-two", "round-robin"]
    results = [evaluate(order, scenario, episodes=3).results for order in (names, names[::-1], names[:1])]
    for result in results[1:]:
        assert result["random"].delays == results[0]["random"].delays
    assert results[0]["power-of-two"].delays == results[1]["power-of-two"].delays


def test_seeds_of_arrivals_are_other_episodes(scenario):
    a, b = (evaluate(["opt-ts"], scenario, episodes=2, seed=s).results["opt-ts"].delays for s in (0, 1))
    assert a != b


# Batches of episodes


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("name", [n for n in HEURISTIC_NAMES if n not in DRAWING])
def test_results_do_not_depend_on_how_many_episodes_are_played_at_once(scenario, monkeypatch, batch, name):
    means = play_episodes(scenario, make_policy(name, scenario), 5).episode_means()
    monkeypatch.setattr(protocol, "BATCH", batch)
    split = play_episodes(scenario, make_policy(name, scenario), 5)
    np.testing.assert_allclose(split.episode_means(), means, rtol=1e-12)


def test_a_learned_policy_does_not_depend_on_the_batch_either(scenario, monkeypatch):
    env = OffloadingEnv(scenario, [2])
    policy = DiffusionPolicy.from_specs(env, prior=ActionMemory(start="uniform"), steps=3, sampler="ddim")
    policy.head = type(policy.head)("argmax")
    means = play_episodes(scenario, policy.eval(), 5).episode_means()
    monkeypatch.setattr(protocol, "BATCH", 2)
    np.testing.assert_allclose(play_episodes(scenario, policy, 5).episode_means(), means, rtol=1e-9)


@pytest.mark.parametrize("name", DRAWING)
def test_what_a_rule_draws_differs_from_one_batch_of_episodes_to_the_next(monkeypatch, name):
    """Otherwise episodes that count as independent would share their draws."""
    workload = Workload((6, 6), (1.0, 1.0), (0.5,) * 6, (3,) * 6, (0.1,) * 6)
    servers = tuple(Server(f, 10.0 + f) for f in (3.0, 4.0, 5.0, 6.0))
    scenario = Scenario(1.0, servers, slots=4, workload=workload)
    monkeypatch.setattr(protocol, "BATCH", 1)
    means = play_episodes(scenario, make_policy(name, scenario), 4).episode_means()
    assert len(set(means.tolist())) == 4


def test_evaluating_leaves_the_policy_as_it_was(scenario):
    policy = DiffusionPolicy.from_specs(OffloadingEnv(scenario, [1]), prior=ActionMemory(), steps=2).train()
    state = policy.generator.get_state()
    first = play_episodes(scenario, policy, 3)
    assert policy.training
    assert torch.equal(policy.generator.get_state(), state)
    np.testing.assert_array_equal(play_episodes(scenario, policy, 3).cost, first.cost)


# What is refused


def test_an_evaluation_needs_an_end_and_a_workload(scenario):
    with pytest.raises(InputError, match="'slots'"):
        evaluate(["opt-ts"], Scenario(1.0, scenario.servers, workload=scenario.workload))
    with pytest.raises(InputError, match="no workload"):
        evaluate(["opt-ts"], Scenario(1.0, scenario.servers, slots=3))


@pytest.mark.parametrize("episodes", [0, -2])
def test_an_evaluation_needs_episodes(scenario, episodes):
    with pytest.raises(InputError, match=f"episodes .*{episodes}"):
        evaluate(["opt-ts"], scenario, episodes=episodes)


def test_a_policy_of_another_shape_is_refused_by_name(scenario):
    other = Scenario(0.5, scenario.servers[:2], slots=5, workload=scenario.workload)
    policy = DiffusionPolicy.from_specs(OffloadingEnv(other, [1]), steps=2)
    with pytest.raises(InputError, match=r"mine.*2 choices.*3"):
        evaluate({"mine": policy}, scenario, episodes=1)


def test_an_evaluation_in_which_nothing_arrives_is_refused(scenario):
    rare = Scenario(1.0, scenario.servers[:1], slots=1, workload=Workload((0, 1), (1, 1), (1.0,), (1,), (1.0,)))
    empty = next(s for s in range(100) if rare.workload.draw(s, Stream.EVALUATION, 0, 0, 1).counts.sum() == 0)
    with pytest.raises(InputError, match="nothing was decided"):
        evaluate(["opt-ts"], rare, episodes=1, seed=empty)


def test_an_episode_in_which_nothing_arrives_is_no_special_case(scenario):
    rare = Scenario(1.0, scenario.servers[:1], slots=1, workload=Workload((0, 1), (1, 1), (1.0,), (1,), (1.0,)))
    result = evaluate(["opt-ts", "local"], rare, episodes=40)
    assert 5 < result.results["local"].delays.tasks < 35
    assert result.results["local"].ratio == 1.0


# Statistics


@pytest.mark.parametrize(
    ("df", "t"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (10, 2.228), (15, 2.131), (19, 2.093), (30, 2.042), (99, 1.984)],
)
def test_student_t_has_the_values_of_the_tables(df, t):
    assert student_t(df) == pytest.approx(t, abs=1e-3)


def test_student_t_falls_towards_the_normal_quantile():
    values = [student_t(df) for df in range(1, 2000)]
    assert all(a > b for a, b in zip(values, values[1:], strict=False))
    assert values[-1] == pytest.approx(1.960, abs=2e-3)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 5))
    intervals = [mean_interval(x) for x in draws]
    assert np.mean([abs(i.mean - 3.0) <= i.half_width for i in intervals]) == pytest.approx(0.95, abs=0.015)


def test_the_ratio_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = []
    for _ in range(1500):
        b = rng.normal(10, 1, 20)
        a = 1.3 * b + rng.normal(0, 0.5, 20)
        parts = [Played(x, np.arange(20), 0.0, {}) for x in (a, b)]
        _, (lo, hi) = ratio_interval(*parts)
        held.append(lo <= 1.3 <= hi)
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_episode_means_count_tasks_and_keep_the_order_of_episodes():
    played = Played(np.array([1.0, 5.0, 3.0, 8.0]), np.array([7, 2, 7, 9]), 0.0, {})
    assert played.episode_means().tolist() == [5.0, 2.0, 8.0]


def test_delays_are_pooled_over_tasks():
    d = Delays.of(np.arange(1, 101, dtype=float))
    assert (d.mean_delay_s, d.p50_delay_s, d.max_delay_s, d.tasks) == (50.5, 50.5, 100.0, 100)
    assert d.p95_delay_s == pytest.approx(95.05)
    assert d.p99_delay_s == pytest.approx(99.01)
