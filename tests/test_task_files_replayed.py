"""Task files of every kind against the plain loops of `oracle.py`."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oracle
from diffpolicy.edge import Scenario, Server, TaskList, make_policy, replay

CHECKED = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random_system(seed, exact):
    """A scenario, its task file's text, the same tasks for the oracle, and the lengths of its steps.

    Args:
        exact: all numbers are small multiples of powers of two: nothing is rounded, and equal costs are frequent.
    """
    rng = np.random.default_rng(seed)

    def draw(values, lo, hi):
        return float(rng.choice(values)) if exact else float(rng.uniform(lo, hi))

    count = int(rng.integers(1, 7))
    servers = tuple(Server(draw([1, 2, 4], 1, 9), draw([2, 4, 8], 3, 9)) for _ in range(count))
    stations = tuple(None if rng.random() < 0.3 else int(rng.integers(count)) for _ in range(rng.integers(1, 6)))
    slot_s = draw([0.25, 0.5, 1.0], 0.1, 2.0)
    scenario = Scenario(slot_s, servers, stations=stations)
    timed = bool(rng.random() < 0.4)
    tasks, times, lines = [], [], []
    now = 0.25 * int(rng.integers(4)) if timed else int(rng.integers(3))
    for _ in range(rng.integers(1, 25)):
        origin = None if rng.random() < 0.2 else int(rng.integers(len(stations)))
        d, r = draw([0, 1, 2, 3], 0, 5), draw([0, 0.5, 1], 0, 1)
        z, steps = draw([0, 0.25, 0.5, 1], 0, 1), int(rng.integers(1, 5))
        home = None if origin is None else stations[origin]
        tasks.append(oracle.Task(0, home, d, r, z * steps))
        times.append(now)
        server = int(rng.integers(count))
        lines.append(f"{now!r},{'' if origin is None else origin},{d!r},{r!r},{z!r},{steps},{server}")
        if rng.random() < 0.3:
            now += draw([0.25, 0.5, 2], 0, 2) if timed else int(rng.integers(1, 4))
    if timed:
        durations = [b - a for a, b in zip(times, times[1:], strict=False)] + [slot_s]
        for k, task in enumerate(tasks):
            task.step = k
    else:
        durations = [slot_s] * (times[-1] + 1)
        for task, slot in zip(tasks, times, strict=True):
            task.step = slot
    column = "arrival_s" if timed else "slot"
    header = f"{column},origin,input_mbit,result_mbit,gcycles_per_step,steps,server"
    return scenario, "\n".join([header, *lines, ""]), tasks, durations


def fleet(scenario):
    return [s.capacity_gcycles_per_s for s in scenario.servers], [s.rate_mbit_per_s for s in scenario.servers]


@CHECKED
@given(seed=st.integers(0, 10**6), exact=st.booleans())
def test_recorded_decisions_agree_with_the_loops(tmp_path, seed, exact):
    scenario, text, tasks, durations = random_system(seed, exact)
    path = tmp_path / "tasks.csv"
    path.write_text(text)
    given_tasks = TaskList.read(path, scenario, decisions=True)
    result = replay(scenario, given_tasks)
    f, v = fleet(scenario)
    _, delays, _ = oracle.simulate(tasks, f, v, durations, lambda k, costs: int(given_tasks.server[k]))
    np.testing.assert_allclose(result.delay_s, delays, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(result.server, given_tasks.server)


@CHECKED
@given(seed=st.integers(0, 10**6), exact=st.booleans())
def test_opt_ts_agrees_with_the_loops_ties_included(tmp_path, seed, exact):
    scenario, text, tasks, durations = random_system(seed, exact)
    path = tmp_path / "tasks.csv"
    path.write_text(text)
    result = replay(scenario, TaskList.read(path, scenario), make_policy("opt-ts", scenario))
    servers, delays, _ = oracle.simulate(tasks, *fleet(scenario), durations, oracle.greedy)
    np.testing.assert_array_equal(result.server, servers)
    np.testing.assert_allclose(result.delay_s, delays, rtol=0, atol=1e-9)


def test_a_gap_drains_one_slot_length_per_missing_slot(read_tasks, scenario):
    # 20 Gcycles on server 0 of 4 Gcycles/s; slots last 0.5 s, so 2 Gcycles are done in each
    tasks = read_tasks("0,0,0,0,20,1,0", "4,0,0,0,1,1,0", decisions=True)
    assert replay(scenario, tasks).delay_s.tolist() == pytest.approx([20 / 4, (20 - 4 * 2) / 4 + 1 / 4])


def test_a_file_may_begin_late(read_tasks, scenario):
    early, late = (
        replay(scenario, read_tasks(f"{t},0,3,1,2,2,1", f"{t + 1},1,3,1,2,2,1", decisions=True)) for t in (0, 700)
    )
    assert early.delay_s.tolist() == late.delay_s.tolist()
    assert early.load == late.load


def test_arrival_times_drain_by_the_second(read_tasks, scenario):
    columns = "arrival_s,origin,input_mbit,result_mbit,gcycles_per_step,steps,server"
    tasks = read_tasks("0,0,0,0,4,1,0", "0,0,0,0,4,1,0", "0.7,0,0,0,4,1,0", columns=columns, decisions=True)
    assert replay(scenario, tasks).delay_s.tolist() == pytest.approx([1, 2, 2 - 0.7 + 1])


def test_slots_count_where_a_file_has_both(read_tasks, scenario):
    columns = "slot,arrival_s,origin,input_mbit,result_mbit,gcycles_per_step,steps,server"
    tasks = read_tasks("0,0,0,0,0,4,1,0", "0,9,0,0,0,4,1,0", columns=columns, decisions=True)
    assert replay(scenario, tasks).delay_s.tolist() == pytest.approx([1, 2])


def test_a_task_without_origin_transmits_its_input_to_every_server(read_tasks, scenario):
    tasks = read_tasks("0,,10,0,0,1,0", "0,0,10,0,0,1,0", "0,1,10,0,0,1,0", decisions=True)
    assert replay(scenario, tasks).delay_s.tolist() == pytest.approx([10 / 50, 0, 10 / 50])


def test_origins_index_stations_and_not_servers(read_tasks, scenario):
    other = Scenario(0.5, scenario.servers, stations=(2, 2, None, 0))
    rows = [f"0,{b},10,0,0,1,2" for b in range(4)]
    result = replay(other, read_tasks(*rows, decisions=True, against=other))
    assert result.delay_s.tolist() == pytest.approx([0, 0, 10 / 45, 10 / 45])


def test_rows_of_a_slot_are_served_in_the_order_of_the_file(read_tasks, scenario):
    rows = ["0,1,0,0,2,1,0", "0,0,0,0,1,1,0", "0,,0,0,3,1,0", "0,1,0,0,4,1,0"]
    result = replay(scenario, read_tasks(*rows, decisions=True))
    assert result.delay_s.tolist() == pytest.approx([2 / 4, 3 / 4, 6 / 4, 10 / 4])
    mirrored = replay(scenario, read_tasks(*rows[::-1], decisions=True))
    assert mirrored.delay_s.tolist() == pytest.approx([4 / 4, 7 / 4, 8 / 4, 10 / 4])


def test_a_policy_wins_over_recorded_decisions(read_tasks, scenario):
    tasks = read_tasks("0,0,0,0,1,1,0", "0,1,0,0,1,1,0", decisions=True)
    result = replay(scenario, tasks, make_policy("local", scenario), name="local")
    assert result.server.tolist() == [0, 1]
    assert result.policy == "local"


@pytest.mark.parametrize(
    "name", ["round-robin", "weighted-round-robin", "random", "power-of-two", "least-work-own", "slot-greedy"]
)
def test_every_rule_decides_a_file_and_pays_what_the_loops_say(read_tasks, scenario, name):
    rng = np.random.default_rng(3)
    rows = [f"{t},{rng.integers(3)},{d!r},1,{w!r},1,0" for t in range(4) for d, w in rng.uniform(0, 3, (5, 2)).tolist()]
    tasks = read_tasks(*rows)
    result = replay(scenario, tasks, make_policy(name, scenario), name=name)
    mirror = [
        oracle.Task(*x)
        for x in zip(tasks.slot, tasks.origin, tasks.input_mbit, tasks.result_mbit, tasks.work_gcycles, strict=True)
    ]
    _, delays, _ = oracle.simulate(mirror, *fleet(scenario), [0.5] * 4, lambda k, costs: int(result.server[k]))
    np.testing.assert_allclose(result.delay_s, delays, rtol=0, atol=1e-9)


def test_the_load_counts_the_gaps(read_tasks, scenario):
    result = replay(scenario, read_tasks("0,0,0,0,2,3,0", "3,0,0,0,1,1,0", decisions=True))
    assert result.load == pytest.approx(7 / (19 * 0.5 * 4))
