"""Bounds against every assignment of tiny episodes, and the search against the environment."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from diffpolicy import InputError
from diffpolicy.edge import Scenario, Server, TaskList, Workload, make_policy, play_episodes, replay
from diffpolicy.edge.bounds.clairvoyant import best_known, sweep
from diffpolicy.edge.bounds.episode import Episode
from diffpolicy.edge.bounds.fixed_split import best_static_split
from diffpolicy.edge.bounds.lower import pooled_bound
from diffpolicy.edge.scenario.availability import Availability
from toys import small


def tiny(seed, servers=2, tasks=7, steps=3):
    """An episode whose assignments can all be played."""
    rng = np.random.default_rng(seed)
    work = rng.uniform(0, 3, tasks) * (rng.uniform(size=tasks) > 0.1)
    step, f = np.sort(rng.integers(0, steps, tasks)), rng.uniform(1, 4, servers)
    return Episode(step, work, rng.uniform(0, 0.1, (tasks, servers)), f, rng.uniform(0.2, 1.5, steps))


def optimum(episode):
    """The least mean delay of all assignments."""
    every = product(range(len(episode.capacity_gcycles_per_s)), repeat=len(episode.step))
    return min(episode.delays_s(np.array(server)).mean() for server in every)


@pytest.mark.parametrize("seed", range(12))
def test_the_optimum_of_a_tiny_episode_lies_between_the_bound_and_the_search(seed):
    episode = tiny(seed)
    best, searches = optimum(episode), [best_known(episode, sweeps=60, heat=1.0, seed=k) for k in range(3)]
    found = min(searches, key=lambda x: x.mean_delay_s)
    assert pooled_bound(episode).mean_delay_s <= best + 1e-9
    assert best - 1e-9 <= found.mean_delay_s <= found.start_s
    assert found.start_s == episode.delays_s(episode.greedy()).mean()
    assert found.mean_delay_s <= 1.02 * best
    assert found.mean_delay_s == episode.delays_s(found.server).mean()


def test_each_of_the_three_bounds_is_the_largest_somewhere():
    one = Episode(np.zeros(1, int), np.ones(1), np.zeros((1, 2)), np.array([1.0, 1.0]), np.ones(1))
    assert pooled_bound(one).mean_delay_s == pooled_bound(one).alone_s == 1
    ordinary = pooled_bound(Episode.of(small()))
    assert ordinary.mean_delay_s == ordinary.mean_busy_s > ordinary.srpt_s
    work, step = np.array([4.0, 1, 1, 1]), np.array([0, 1, 2, 3])
    interrupted = Episode(step, work, np.zeros((4, 1)), np.ones(1), np.ones(4))
    assert pooled_bound(interrupted).srpt_s == pytest.approx((7 + 1 + 1 + 1) / 4)
    assert pooled_bound(interrupted).mean_delay_s == pooled_bound(interrupted).srpt_s


def test_on_one_server_without_preemption_the_bound_is_the_optimum():
    episode = Episode(np.zeros(3, int), np.array([1.0, 2, 4]), np.full((3, 1), 0.5), np.array([2.0]), np.ones(1))
    assert pooled_bound(episode).mean_delay_s == pytest.approx(optimum(episode)) == pytest.approx(0.5 + 5.5 / 3)


@pytest.mark.parametrize("tasks", [3, 9])
def test_an_episode_has_the_delays_of_the_environment(tasks):
    scenario = small(tasks=tasks)
    for k in range(2):
        episode = Episode.of(scenario, k, seed=3)
        played = play_episodes(scenario, make_policy("opt-ts", scenario), 2, seed=3)
        assert np.allclose(episode.delays_s(episode.greedy()), played.cost[played.episode == k], rtol=1e-12)


def test_a_task_file_is_an_episode():
    scenario, k = small(), np.arange(40)
    tasks = TaskList(
        slot=k // 10, duration_s=np.array([1.0, 3, 1, 1]), origin=k % 4 - 1, input_mbit=2 + k % 3 / 1.0,
        result_mbit=0.5 + k / 100, work_gcycles=k % 7 / 2, steps=np.ones(40, int), server=k % 3,
    )  # fmt: skip
    episode = Episode.of(scenario, tasks=tasks)
    assert np.allclose(episode.delays_s(tasks.server), replay(scenario, tasks).delay_s, rtol=1e-12)


def test_a_sweep_never_lengthens_the_total_and_knows_each_cost_exactly():
    rng = np.random.default_rng(0)
    episode = Episode.of(small(tasks=8))
    server = rng.integers(0, 3, len(episode.step))
    moved = len(server)
    while moved:
        before, (server, moved) = episode.delays_s(server).sum(), sweep(episode, server)
        assert episode.delays_s(server).sum() <= before + 1e-9
    for k in range(len(server)):  # where it ends, no single move helps
        for a in range(3):
            other = np.where(np.arange(len(server)) == k, a, server)
            assert episode.delays_s(other).sum() >= episode.delays_s(server).sum() - 1e-9


def test_a_search_repeats_itself_and_its_seed_matters():
    episode = Episode.of(small(tasks=8))
    first, again, other = best_known(episode), best_known(episode), best_known(episode, seed=1)
    assert np.array_equal(first.server, again.server)
    assert np.array_equal(first.by_sweep_s, again.by_sweep_s)
    assert not np.array_equal(first.by_sweep_s, other.by_sweep_s)
    onward = best_known(episode, sweeps=1, start=first.server)
    assert onward.mean_delay_s <= first.mean_delay_s == onward.start_s


def test_what_the_bounds_do_not_cover_is_refused():
    scenario = small()
    down = Availability.from_dict({"down_s": [[1, 2]]}, "availability")
    failing = replace(scenario, servers=(replace(scenario.servers[0], availability=down), *scenario.servers[1:]))
    for wrong, words in (
        (failing, r"servers\[0\] of scenario .* has outages, which bounds do not cover"),
        (Scenario.load("gpu-mix"), "scenario gpu-mix has measured servers; bounds hold for the linear law only"),
        (replace(scenario, slots=None), "has no 'slots', so an episode has no end"),
    ):
        with pytest.raises(InputError, match=words):
            Episode.of(wrong)
    with pytest.raises(InputError, match="episode and seed must be at least 0, got -1 and 0"):
        Episode.of(scenario, -1)


def test_a_search_refuses_what_it_cannot_start_from():
    episode = tiny(0)
    for start, words in (
        (np.zeros(3, int), r"start must hold 7 decisions, got shape \[3\]"),
        (np.full(7, 2), "start must hold server indices from 0 to 1, got 2 to 2"),
    ):
        with pytest.raises(InputError, match=words):
            best_known(episode, start=start)
    with pytest.raises(InputError, match="sweeps must be at least 1 and seed at least 0, got 0 and 0"):
        best_known(episode, sweeps=0)
    with pytest.raises(InputError, match="heat must be a number of at least 0, got nan"):
        best_known(episode, heat=float("nan"))


def test_the_fluid_optimum_separates_sizes_and_fills_no_server_that_it_need_not():
    scenario = Scenario.load("lad-ts")
    split = best_static_split(scenario, steps=600)
    assert np.allclose(split.share.sum(1), 1)
    f = np.array([s.capacity_gcycles_per_s for s in scenario.servers])
    assert split.load @ f / f.sum() == pytest.approx(scenario.load_factor())
    tasks = split.share * split.tasks_per_slot[:, None]
    size = (tasks * split.work_gcycles[:, None]).sum(0) / tasks.sum(0)
    assert size.max() > 3 * size.min()
    assert split.residual < 0.3
    over = split.load > 1.05
    assert over.any()
    assert split.price_s_per_gcycle[over] == pytest.approx((tasks.sum(0) / f)[over] * (29 + 0.5))
    episode = Episode.of(scenario)
    drawn = episode.delays_s(split.draw(episode)).mean()
    assert drawn < 0.8 * episode.delays_s(episode.greedy()).mean()
    assert drawn == pytest.approx(split.mean_delay_s, rel=0.15)


def test_two_equal_servers_share_one_size_in_the_fluid():
    workload = Workload((4, 4), (0.0, 0.0), (0.5,) * 4, (1,) * 4, (0.0,) * 4)
    scenario = Scenario(1.0, (Server(4.0, 1.0), Server(4.0, 1.0)), 10, workload=workload)
    split = best_static_split(scenario, steps=400)
    assert split.load == pytest.approx([0.5, 0.5], abs=0.01)
    assert split.mean_delay_s == pytest.approx(1.0 / 4 + 0.5 / 4, rel=1e-3)  # half of the slot's work, and its own
    assert split.price_s_per_gcycle == pytest.approx([0.5, 0.5], abs=0.01)  # four tasks wait, half of them, 1/4 s


def test_the_fluid_refuses_what_it_cannot_describe():
    for wrong, words in (
        (replace(small(), workload=None), "needs a workload of kind lad-ts and 'slots' for a fluid optimum"),
        (replace(small(), slots=None), "needs a workload of kind lad-ts and 'slots' for a fluid optimum"),
        (Scenario.load("gpu-mix"), "has measured servers"),
    ):
        with pytest.raises(InputError, match=words):
            best_static_split(wrong)
    with pytest.raises(InputError, match="steps must be at least 1 and seed at least 0, got 0 and 0"):
        best_static_split(small(), steps=0)
