"""`OffloadingEnv`: specs, physics, resets, horizons, episodes, and going on from a saved state."""

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

import oracle
from diffpolicy import InputError
from diffpolicy.edge import OffloadingEnv, Scenario, Stream, TaskList

LEVELS = ["paper", "private", "stale", "live"]
ARRIVALS = ["valid", "input_mbit", "work_gcycles"]


def decide(env, td, seed=0):
    """The tensordict with uniformly drawn decisions."""
    shape = td["agents", "valid"].shape
    g = torch.Generator().manual_seed(seed)
    return td.set(("agents", "action"), torch.randint(len(env.scenario.servers), shape, generator=g))


def episodes(env, steps, seed=0):
    """Observations of all slots under drawn decisions, the last one's successor included; a list of tensordicts."""
    td = env.reset()
    seen = [td.clone()]
    for t in range(steps):
        td = env.step_mdp(env.step(decide(env, td, seed + t)))
        seen.append(td.clone())
    return seen


def arrivals(seen, e):
    return [[td["agents", name][e] * td["agents", "valid"][e] for name in ARRIVALS] for td in seen]


def equal(a, b):
    return all(torch.equal(x, y) for s, t in zip(a, b, strict=True) for x, y in zip(s, t, strict=True))


# Specs


@pytest.mark.parametrize("information", LEVELS)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_specs_hold(scenario, information, batch, dtype):
    check_env_specs(OffloadingEnv(scenario, [batch], information=information, dtype=dtype))


@pytest.mark.parametrize("information", LEVELS)
@pytest.mark.parametrize("stations", [(None,), (1,), (0, 0, 2, None, 1)])
def test_specs_hold_whatever_the_stations(scenario, information, stations):
    other = Scenario(0.5, scenario.servers, slots=5, stations=stations, workload=scenario.workload)
    check_env_specs(OffloadingEnv(other, [2], information=information))


@pytest.mark.parametrize("information", LEVELS)
def test_specs_hold_for_one_server(scenario, information):
    one = Scenario(0.5, scenario.servers[:1], slots=5, workload=scenario.workload)
    check_env_specs(OffloadingEnv(one, [2], information=information))


@pytest.mark.parametrize("information", LEVELS)
def test_specs_hold_for_a_task_file(scenario, read_tasks, information):
    tasks = read_tasks("0,0,3,1,1,1,0", "0,,3,1,1,1,0", "0,0,3,1,1,1,0", "4,2,3,1,1,1,0")
    env = OffloadingEnv(scenario, information=information, tasks=tasks)
    assert env.reset()["agents", "valid"].tolist() == [[[True, True, True], [False] * 3, [False] * 3]]
    check_env_specs(env)


@pytest.mark.parametrize("information", LEVELS)
def test_specs_hold_on_an_explicit_device(scenario, information):
    env = OffloadingEnv(scenario, [2], information=information, device="cpu")
    assert env.device == torch.device("cpu")
    check_env_specs(env)
    assert all(value.device == env.device for value in env.rollout(2).values(True, True))


def test_specs_hold_for_the_paper():
    check_env_specs(OffloadingEnv(Scenario.load("lad-ts"), [2]))


def test_the_observation_holds_size_work_and_queues(scenario):
    seen = episodes(OffloadingEnv(scenario, [3], dtype=torch.float64), 3)
    for td in seen:
        agents = td["agents"]
        assert agents["observation"].shape == (3, 3, 4, 2 + 3)
        assert torch.equal(agents["observation"][..., 0], agents["input_mbit"])
        assert torch.equal(agents["observation"][..., 1], agents["work_gcycles"])
        queues = td["queue_gcycles"][:, None, None].expand(3, 3, 4, 3)
        assert torch.equal(agents["observation"][..., 2:], queues)
    assert seen[-1]["queue_gcycles"].sum() > 0


def test_the_tasks_are_those_of_the_workload(scenario):
    seen = episodes(OffloadingEnv(scenario, [2], 7, dtype=torch.float64, first_episode=5), 2)
    for t, td in enumerate(seen):
        for e in range(2):
            drawn = scenario.workload.draw(7, Stream.EVALUATION, 5 + e, t, 3)
            valid = np.arange(4) < drawn.counts[:, None]
            np.testing.assert_array_equal(td["agents", "valid"][e].numpy(), valid)
            np.testing.assert_array_equal(td["agents", "work_gcycles"][e].numpy(), drawn.work_gcycles * valid)
            inputs = td["agents", "input_mbit"][e].numpy()
            np.testing.assert_array_equal(inputs[valid], drawn.input_mbit[valid])


# Physics


@pytest.mark.parametrize("stations", [(0, 1, 2), (2, None, 2, 0)])
def test_rewards_and_queues_agree_with_the_loops(scenario, stations):
    scenario = Scenario(0.5, scenario.servers, slots=5, stations=stations, workload=scenario.workload)
    env = OffloadingEnv(scenario, [2], dtype=torch.float64)
    f, v = [4.0, 9.0, 6.0], [50.0, 40.0, 45.0]
    td = env.reset()
    tasks, servers, rewards, queues = [[], []], [[], []], [[], []], []
    for t in range(5):
        step = env.step(decide(env, td, t))
        for e in range(2):
            for b, n in td["agents", "valid"][e].nonzero().tolist():
                d, w = (float(td["agents", x][e, b, n]) for x in ("input_mbit", "work_gcycles"))
                tasks[e].append(oracle.Task(t, stations[b], d, scenario.workload.result_mbit[n], w))
                servers[e].append(int(step["agents", "action"][e, b, n]))
                rewards[e].append(float(step["next", "agents", "reward"][e, b, n]))
        off = ~td["agents", "valid"]
        assert (step["next", "agents", "reward"][off] == 0).all()
        queues.append(step["next", "queue_gcycles"])
        td = env.step_mdp(step)
    for e in range(2):
        _, delays, queue = oracle.simulate(tasks[e], f, v, [0.5] * 5, lambda k, costs, e=e: servers[e][k])
        np.testing.assert_allclose(rewards[e], [-x for x in delays], rtol=0, atol=1e-12)
        np.testing.assert_allclose(queues[-1][e], queue, rtol=0, atol=1e-12)


def test_actions_of_entries_without_a_task_do_nothing(scenario):
    nexts = []
    for other in (0, 2):
        env = OffloadingEnv(scenario, [3])
        td = decide(env, env.reset())
        td["agents", "action"] = torch.where(td["agents", "valid"], td["agents", "action"], other)
        nexts.append(env.step(td)["next"])
    assert (nexts[0] == nexts[1]).all()


# Horizon and resets


def test_the_horizon_truncates_and_does_not_terminate(scenario):
    rollout = OffloadingEnv(scenario, [2]).rollout(50)
    assert rollout.shape == (2, 5)
    assert rollout["next", "truncated"].squeeze(-1).tolist() == [[False] * 4 + [True]] * 2
    assert torch.equal(rollout["next", "done"], rollout["next", "truncated"])
    assert not rollout["next", "terminated"].any()


def test_the_slot_after_the_horizon_can_be_observed(scenario):
    longer = Scenario(0.5, scenario.servers, slots=6, workload=scenario.workload)
    seen, more = (episodes(OffloadingEnv(s, [1]), 5) for s in (scenario, longer))
    assert (seen[5]["agents"] == more[5]["agents"]).all()


def test_without_slots_an_episode_has_no_end(scenario):
    endless = Scenario(0.5, scenario.servers, workload=scenario.workload)
    assert not OffloadingEnv(endless, [1]).rollout(20)["next", "done"].any()


def test_a_task_file_ends_with_its_last_slot(scenario, read_tasks):
    env = OffloadingEnv(scenario, tasks=read_tasks("0,0,3,1,1,1,0", "9,0,3,1,1,1,0"))
    rollout = env.rollout(10)
    assert rollout.shape == (1, 2)
    assert rollout["next", "truncated"].flatten().tolist() == [False, True]
    assert not rollout["next", "agents", "valid"][0, -1].any()


def test_a_partial_reset_leaves_the_other_rows_alone(scenario):
    env, twin = (OffloadingEnv(scenario, [3], dtype=torch.float64) for _ in range(2))
    tds = [env.reset(), twin.reset()]
    for t in range(3):
        tds = [x.step_mdp(x.step(decide(x, td, t))) for x, td in zip((env, twin), tds, strict=True)]
    before = tds[0].clone()
    td = env.reset(tds[0].set("_reset", torch.tensor([[False], [True], [False]])))
    for name in ("queue_gcycles", ("agents", "observation"), ("agents", "valid")):
        assert torch.equal(td[name][[0, 2]], before[name][[0, 2]])
    assert not td["queue_gcycles"][1].any()
    assert before["queue_gcycles"][1].any()
    after, expected = env.step(decide(env, td, 9)), twin.step(decide(twin, tds[1], 9))
    for name in ("queue_gcycles", ("agents", "reward"), ("agents", "input_mbit"), "truncated"):
        assert torch.equal(after["next"][name][[0, 2]], expected["next"][name][[0, 2]])


def test_a_row_that_is_reset_takes_the_next_episode_of_its_own(scenario):
    env = OffloadingEnv(scenario, [2], dtype=torch.float64)
    td = env.reset()
    td = env.reset(td.set("_reset", torch.tensor([[False], [True]])))
    third = OffloadingEnv(scenario, [1], first_episode=3, dtype=torch.float64).reset()
    assert equal(arrivals([td], 1), arrivals([third], 0))
    td = env.reset()
    for e, k in ((0, 2), (1, 5)):
        fresh = OffloadingEnv(scenario, [1], first_episode=k, dtype=torch.float64).reset()
        assert equal(arrivals([td], e), arrivals([fresh], 0))


def test_rows_that_end_are_reset_on_the_way(scenario):
    env = OffloadingEnv(scenario, [2])
    td = env.reset()
    for t in range(5):
        step, td = env.step_and_maybe_reset(decide(env, td, t))
    assert step["next", "truncated"].all()
    assert not td["truncated"].any()
    assert not td["queue_gcycles"].any()
    assert equal(arrivals([td], 0), arrivals([OffloadingEnv(scenario, [1], first_episode=2).reset()], 0))


# Episodes


@pytest.mark.parametrize("stream", list(Stream))
def test_an_episode_is_the_same_in_any_batch(scenario, stream):
    batch = episodes(OffloadingEnv(scenario, [5], 3, stream=stream), 5)
    for k in range(5):
        alone = episodes(OffloadingEnv(scenario, [1], 3, stream=stream, first_episode=k), 5)
        assert equal(arrivals(batch, k), arrivals(alone, 0))


def test_an_episode_does_not_depend_on_what_is_decided(scenario):
    a, b = (episodes(OffloadingEnv(scenario, [2]), 5, seed) for seed in (0, 100))
    assert equal(arrivals(a, 1), arrivals(b, 1))
    assert not torch.equal(a[-1]["queue_gcycles"], b[-1]["queue_gcycles"])


def test_an_episode_is_the_same_in_either_precision(scenario):
    single, double = (episodes(OffloadingEnv(scenario, [2], dtype=d), 5) for d in (torch.float32, torch.float64))
    for a, b in zip(single, double, strict=True):
        assert torch.equal(a["agents", "valid"], b["agents", "valid"])
        a, b = a["agents", "observation"].double(), b["agents", "observation"]
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_seeds_and_streams_are_different_episodes(scenario):
    base = OffloadingEnv(scenario, [1], 0).reset()["agents", "input_mbit"]
    assert not torch.equal(base, OffloadingEnv(scenario, [1], 1).reset()["agents", "input_mbit"])
    training = OffloadingEnv(scenario, [1], 0, stream=Stream.TRAINING).reset()["agents", "input_mbit"]
    assert not torch.equal(base, training)


def test_setting_the_seed_is_starting_with_it(scenario):
    env = OffloadingEnv(scenario, [2], 0, first_episode=4)
    episodes(env, 3)
    env.set_seed(5)
    assert equal(
        arrivals(episodes(env, 3), 1), arrivals(episodes(OffloadingEnv(scenario, [2], 5, first_episode=4), 3), 1)
    )


def test_no_global_generator_is_touched(scenario):
    numpy_state = np.random.get_state
    before = torch.get_rng_state(), numpy_state()[1].copy()
    episodes(OffloadingEnv(scenario, [2], information="live"), 3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (numpy_state()[1] == before[1]).all()


# Saving and restoring


@pytest.mark.parametrize("after", [0, 2, 5])
def test_a_restored_environment_goes_on_as_if_nothing_had_happened(scenario, after):
    env = OffloadingEnv(scenario, [2], 3, information="live")
    td = env.reset()
    for t in range(after):
        _, td = env.step_and_maybe_reset(decide(env, td, t))
    state, root = env.get_extra_state(), td.clone()
    fresh = OffloadingEnv(scenario, [2], 8, information="live")
    fresh.reset()
    fresh.set_extra_state(state)
    other = root
    for t in range(8):
        a, td = env.step_and_maybe_reset(decide(env, td, t))
        b, other = fresh.step_and_maybe_reset(decide(fresh, other, t))
        assert (a == b).all()
        assert (td == other).all()


def test_a_saved_state_is_a_snapshot(scenario):
    env = OffloadingEnv(scenario, [2])
    td = env.reset()
    state = env.get_extra_state()
    env.step(decide(env, td))
    assert state["slot"] == [0, 0]
    assert not state["queue_gcycles"].any()


def test_the_state_of_a_task_file_is_restored(scenario, read_tasks):
    rows = [f"{t},{t % 3},3,1,2,2,0" for t in range(6)]
    env, fresh = (OffloadingEnv(scenario, tasks=read_tasks(*rows)) for _ in range(2))
    td = env.reset()
    for t in range(3):
        td = env.step_mdp(env.step(decide(env, td, t)))
    fresh.reset()
    fresh.set_extra_state(env.get_extra_state())
    assert (env.step(decide(env, td.clone(), 3)) == fresh.step(decide(fresh, td.clone(), 3))).all()


# What is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": [0]}, r"batch_size .*\[0\]"),
        ({"batch_size": []}, r"batch_size .*\[\]"),
        ({"batch_size": [2, 3]}, r"batch_size .*\[2, 3\]"),
        ({"information": "all"}, "information .*'all'"),
        ({"seed": -1}, "seed .*-1"),
        ({"first_episode": -1}, "first_episode .*-1"),
    ],
)
def test_bad_arguments_are_refused(scenario, options, says):
    with pytest.raises(InputError, match=says):
        OffloadingEnv(scenario, **options)


def test_a_scenario_without_a_workload_needs_tasks(scenario):
    with pytest.raises(InputError, match="no workload"):
        OffloadingEnv(Scenario(1.0, scenario.servers, name="bare"))


def test_a_task_file_is_one_environment(scenario, read_tasks):
    tasks = read_tasks("0,0,3,1,1,1,0")
    assert isinstance(tasks, TaskList)
    with pytest.raises(InputError, match="2"):
        OffloadingEnv(scenario, [2], tasks=tasks).reset()
