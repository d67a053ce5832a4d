"""Each rule against its formula in loops, and what holds of all of them."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict

import oracle
from diffpolicy import InputError, with_recurrent_state
from diffpolicy.edge import HEURISTICS, OffloadingEnv, Scenario, make_policy
from diffpolicy.edge.names import HEURISTIC_NAMES

DRAWING = ["random", "capacity-proportional", "power-of-two"]


def slot(e=2, b=3, n=5, s=4, seed=0, queue=None, capacity=None, arrival=None):
    """One slot as a `live` environment shows it, drawn in float64, with the state of the rules that remember."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    valid = torch.arange(n) < (uniform(e, b, 1) * (n + 1)).long()
    f = 10 + 40 * uniform(s) if capacity is None else torch.as_tensor(capacity, dtype=torch.float64)
    q = 30 * uniform(e, s) if queue is None else torch.as_tensor(queue, dtype=torch.float64).expand(e, s)
    moment = uniform(e, b, n).sort(-1).values.masked_fill(~valid, 2)
    order = moment.flatten(1).argsort(-1)
    rank = torch.zeros(e, b * n, dtype=torch.int64).scatter(1, order, torch.arange(b * n).expand(e, -1))
    agents = {
        "valid": valid,
        "input_mbit": 2 + 3 * uniform(e, b, n),
        "work_gcycles": 4 * uniform(e, b, n) * valid,
        "result_mbit": uniform(e, b, n),
        "home": (uniform(e, b, n) * (s + 1)).long() - 1,
        "action_mask": torch.ones(e, b, s, dtype=torch.bool),
        "arrival": torch.where(valid, rank.view(e, b, n), b * n),
        "turn": (torch.arange(b) % s).expand(e, b).clone(),
        "credit": torch.zeros(e, b, s, dtype=torch.float64),
    }
    servers = {
        "capacity_gcycles_per_s": f.expand(e, s).clone(),
        "rate_mbit_per_s": (4 + uniform(s)).expand(e, s).clone(),
        "up": torch.ones(e, s, dtype=torch.bool),
    }
    return TensorDict(
        {
            "queue_gcycles": q.clone(),
            "servers": TensorDict(servers, batch_size=[e]),
            "agents": TensorDict(agents, batch_size=[e, b]),
        },
        batch_size=[e],
    )


def rule(name, td, seed=0):
    return HEURISTICS[name](td["agents"].shape[1], td["queue_gcycles"].shape[-1], seed=seed)


def decided(name, td, seed=0):
    return rule(name, td, seed)(td.clone())["agents", "action"]


def environments(td):
    """For each environment: its servers' f, v and q as lists, and its tasks as (b, n, oracle task) per station."""
    for e in range(td.shape[0]):
        row = td[e]
        tasks = [
            (
                b,
                n,
                oracle.Task(
                    0,
                    *(row["agents", x][b, n].item() for x in ("home", "input_mbit", "result_mbit", "work_gcycles")),
                ),
            )
            for b, n in row["agents", "valid"].nonzero().tolist()
        ]
        f, v = row["servers", "capacity_gcycles_per_s"].tolist(), row["servers", "rate_mbit_per_s"].tolist()
        yield e, f, v, row["queue_gcycles"].tolist(), tasks


def costs(task, queue, f, v):
    return [oracle.delay(task, a, queue[a], f, v) for a in range(len(f))]


# Formulas


@pytest.mark.parametrize("seed", range(5))
def test_slot_greedy_takes_the_least_delay_of_the_slot_start_queues(seed):
    td = slot(seed=seed)
    server = decided("slot-greedy", td)
    for e, f, v, queue, tasks in environments(td):
        for b, n, task in tasks:
            assert server[e, b, n] == np.argmin(costs(task, queue, f, v))


@pytest.mark.parametrize("seed", range(5))
def test_least_work_takes_the_least_backlog_in_seconds(seed):
    td = slot(seed=seed)
    server = decided("least-work", td)
    for e, f, _, queue, tasks in environments(td):
        for b, n, _ in tasks:
            assert server[e, b, n] == np.argmin(np.array(queue) / np.array(f))


@pytest.mark.parametrize("seed", range(5))
def test_least_work_own_supposes_that_all_stations_send_what_it_sends(seed):
    td = slot(seed=seed)
    server = decided("least-work-own", td)
    for e, f, v, queue, tasks in environments(td):
        live = {b: list(queue) for b in range(3)}
        for b, n, task in tasks:
            best = int(np.argmin(costs(task, live[b], f, v)))
            assert server[e, b, n] == best
            live[b][best] += 3 * task.w


@pytest.mark.parametrize("seed", range(5))
def test_opt_ts_takes_the_least_delay_of_the_live_queues_in_order_of_arrival(seed):
    td = slot(seed=seed)
    server = decided("opt-ts", td)
    for e, f, v, queue, tasks in environments(td):
        for b, n, task in sorted(tasks, key=lambda x: int(td["agents", "arrival"][e, x[0], x[1]])):
            best = int(np.argmin(costs(task, queue, f, v)))
            assert server[e, b, n] == best
            queue[best] += task.w


def test_local_takes_the_server_at_the_origin():
    td = slot()
    td["agents", "home"] = td["agents", "home"].clamp_min(0)
    server, valid = decided("local", td), td["agents", "valid"]
    assert torch.equal(server[valid], td["agents", "home"][valid])


def test_local_refuses_a_task_without_origin_and_names_it():
    td = slot()
    td["agents", "home"] = td["agents", "home"].clamp_min(0)
    b, n = td["agents", "valid"][0].nonzero()[-1].tolist()
    td["agents", "home"][0, b, n] = -1
    with pytest.raises(InputError, match=f"local .*task {n} of station {b}"):
        decided("local", td)
    td["agents", "valid"][0, b, n] = False
    decided("local", td)


@pytest.mark.parametrize("seed", range(3))
def test_round_robin_goes_on_from_its_own_index_task_by_task(seed):
    td = slot(b=6, seed=seed)
    server = decided("round-robin", td)
    for e, _, _, _, tasks in environments(td):
        turn = list(range(6))
        for b, n, _ in tasks:
            assert server[e, b, n] == turn[b] % 4
            turn[b] += 1


@pytest.mark.parametrize("seed", range(5))
def test_weighted_round_robin_is_the_smooth_kind(seed):
    td = slot(n=40, seed=seed)
    server = decided("weighted-round-robin", td)
    assert td["agents", "valid"].sum() > 50
    for e, f, _, _, tasks in environments(td):
        credit = np.zeros((3, 4))
        for b, n, _ in tasks:
            credit[b] += f
            best = int(credit[b].argmax())
            assert server[e, b, n] == best
            credit[b, best] -= sum(f)


def test_smooth_weights_spread_as_the_textbook_has_them():
    td = slot(e=1, b=1, n=7, s=3, capacity=[5, 1, 1])
    td["agents", "valid"][:] = True
    assert decided("weighted-round-robin", td).flatten().tolist() == [0, 0, 1, 0, 2, 0, 0]


# What is remembered


def play(name, scenario, steps, env=None):
    """Decisions and valid flags of slots under a rule, each a list of `[E, B, N]`."""
    env = OffloadingEnv(scenario, [2], information="stale", dtype=torch.float64) if env is None else env
    policy = make_policy(name, scenario)
    env = with_recurrent_state(env, policy)
    td = env.reset()
    servers, valid = [], []
    for _ in range(steps):
        step, td = env.step_and_maybe_reset(policy(td))
        servers.append(step["agents", "action"])
        valid.append(step["agents", "valid"])
    return servers, valid


def sequence(servers, valid, e, b):
    return [int(x) for s, ok in zip(servers, valid, strict=True) for x in s[e, b][ok[e, b]]]


def test_round_robin_goes_on_over_slots_and_starts_anew_with_an_episode(scenario):
    servers, valid = play("round-robin", scenario, 10)
    for e in range(2):
        for b in range(3):
            for part in (slice(0, 5), slice(5, 10)):
                got = sequence(servers[part], valid[part], e, b)
                assert got == [(b + i) % 3 for i in range(len(got))]


def test_weighted_round_robin_goes_on_over_slots(scenario):
    servers, valid = play("weighted-round-robin", scenario, 10)
    f = np.array([4.0, 9.0, 6.0])
    for e in range(2):
        for b in range(3):
            for part in (slice(0, 5), slice(5, 10)):
                credit = np.zeros(3)
                for a in sequence(servers[part], valid[part], e, b):
                    credit += f
                    assert a == credit.argmax()
                    credit[a] -= f.sum()


def test_weighted_round_robin_keeps_every_share_within_one_task():
    scenario = Scenario.load("lad-ts").override(slots=12)
    servers, valid = play("weighted-round-robin", scenario, 12)
    f = np.array([s.capacity_gcycles_per_s for s in scenario.servers])
    for b in (0, 7):
        got = np.eye(20)[sequence(servers, valid, 1, b)].cumsum(0)
        fair = np.arange(1, len(got) + 1)[:, None] * f / f.sum()
        assert len(got) > 100
        assert abs(got - fair).max() < 1


# Draws


def shares(name, td, times=300):
    policy = rule(name, td)
    s = td["queue_gcycles"].shape[-1]
    counts = np.zeros(s)
    for _ in range(times):
        server = policy(td.clone())["agents", "action"]
        counts += np.bincount(server[td["agents", "valid"]].numpy(), minlength=s)
    return counts / counts.sum(), counts.sum()


def close(share, expected, n):
    """Within five standard errors of a share of n independent draws."""
    expected = np.asarray(expected)
    np.testing.assert_array_less(abs(share - expected), 5 * np.sqrt(expected * (1 - expected) / n) + 1e-12)


def test_random_is_uniform():
    share, n = shares("random", slot())
    close(share, [0.25] * 4, n)


def test_random_keeps_to_the_mask_of_each_station():
    td = slot()
    td["agents", "action_mask"][0, 1] = torch.tensor([False, True, False, True])
    policy = rule("random", td)
    seen = {int(x) for _ in range(50) for x in policy(td.clone())["agents", "action"][0, 1]}
    assert seen == {1, 3}


def test_capacity_proportional_draws_by_capacity():
    share, n = shares("capacity-proportional", slot(capacity=[10, 20, 50, 20]))
    close(share, [0.1, 0.2, 0.5, 0.2], n)


def test_power_of_two_takes_the_lesser_of_two_distinct_uniform_servers():
    # by rank, the best of a uniform pair of distinct ones has the share 2 (S - 1 - rank) / (S (S - 1))
    share, n = shares("power-of-two", slot(capacity=[10, 10, 10, 20], queue=[30.0, 10.0, 20.0, 10.0]))
    close(share, np.array([0, 2, 1, 3]) / 6, n)


def test_power_of_two_compares_seconds_and_not_work():
    td = slot(s=2, capacity=[10, 50], queue=[20.0, 40.0])
    assert (decided("power-of-two", td) == 1).all()


def test_power_of_two_gives_ties_to_the_lower_index():
    share, n = shares("power-of-two", slot(queue=[0.0] * 4))
    close(share, np.array([3, 2, 1, 0]) / 6, n)


@pytest.mark.parametrize("name", DRAWING)
def test_draws_are_determined_by_the_seed(name):
    td = slot(n=30)
    assert torch.equal(decided(name, td, seed=4), decided(name, td, seed=4))
    assert not torch.equal(decided(name, td, seed=4), decided(name, td, seed=5))
    policy = rule(name, td)
    assert not torch.equal(policy(td.clone())["agents", "action"], policy(td.clone())["agents", "action"])


@pytest.mark.parametrize("name", DRAWING)
def test_draws_leave_the_global_generator_alone(name):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    decided(name, slot())
    assert torch.equal(torch.get_rng_state(), before)


# Of all rules


def test_every_rule_has_its_name():
    assert tuple(HEURISTICS) == HEURISTIC_NAMES
    assert all(name == kind.name for name, kind in HEURISTICS.items())


@pytest.mark.parametrize("name", HEURISTIC_NAMES)
def test_decisions_are_servers_in_the_shape_of_the_action(name, scenario):
    env = OffloadingEnv(scenario, [3], information="live")
    policy = make_policy(name, scenario)
    env = with_recurrent_state(env, policy)
    td = env.reset()
    for _ in range(7):
        step, td = env.step_and_maybe_reset(policy(td))
        action = step["agents", "action"]
        assert action.dtype == torch.int64
        assert env.full_action_spec["agents", "action"].is_in(action)


@pytest.mark.parametrize("name", HEURISTIC_NAMES)
def test_one_server_leaves_one_choice(name):
    td = slot(s=1)
    td["agents", "home"][:] = 0
    assert (decided(name, td)[td["agents", "valid"]] == 0).all()


@pytest.mark.parametrize("name", HEURISTIC_NAMES)
def test_a_slot_without_tasks_is_no_special_case(name):
    td = slot()
    td["agents", "valid"][:] = False
    td["agents", "work_gcycles"][:] = 0
    assert decided(name, td).shape == (2, 3, 5)


@pytest.mark.parametrize("name", [n for n in HEURISTIC_NAMES if n not in ("local", "round-robin", "random")])
def test_a_server_that_is_down_gets_nothing(name):
    td = slot(n=30, queue=[0.0, 0.0, 30.0, 30.0])
    td["servers", "up"][:, 0] = False
    server = decided(name, td)[td["agents", "valid"]]
    assert len(server) > 50
    assert 0 not in server


@pytest.mark.parametrize("name", [n for n in HEURISTIC_NAMES if n not in DRAWING])
def test_environments_of_a_batch_are_decided_on_their_own(name):
    td = slot(e=3)
    td["agents", "home"] = td["agents", "home"].clamp_min(0)
    together = decided(name, td)
    for e in range(3):
        valid = td["agents", "valid"][e]
        assert torch.equal(decided(name, td[e : e + 1])[0][valid], together[e][valid])


@pytest.mark.parametrize("name", ["opt-ts", "slot-greedy", "least-work", "least-work-own", "weighted-round-robin"])
def test_ties_go_to_the_lowest_index(name):
    td = slot(e=1, b=1, n=1, s=3, capacity=[20, 20, 20], queue=[0.0, 0.0, 0.0])
    td["agents", "valid"][:] = True
    td["agents", "home"][:] = -1
    td["servers", "rate_mbit_per_s"][:] = 4
    assert decided(name, td).item() == 0
