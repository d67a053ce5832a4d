"""Scenarios and workloads: their files, what is refused, the draws of the released code, and who arrives when."""

import copy
import json

import numpy as np
import pytest

from diffpolicy import InputError
from diffpolicy.edge import Scenario, Server, Stream, Workload
from diffpolicy.edge.scenario import Availability, ModelTimes, ServerService

LAD = Scenario.load("lad-ts")


@pytest.fixture
def data(scenario):
    """The file form of the scenario of three servers."""
    return json.loads(json.dumps(scenario.to_dict()))


def changed(data, path, value):
    """A copy with the value at a path of keys and indices replaced."""
    result = copy.deepcopy(data)
    place = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return result


# Files


def test_a_scenario_survives_its_file_form(scenario, data):
    assert Scenario.from_dict(data) == scenario
    assert Scenario.from_dict(data).to_dict() == data
    assert Scenario.from_dict(json.loads(json.dumps(LAD.to_dict()))) == LAD


def test_every_optional_key_survives_the_file_form(data):
    data["servers"][1] |= {
        "name": "b",
        "power_w": 70.0,
        "price_per_hour": 0.5,
        "models": ["sd3"],
        "availability": {"down_s": [[1.0, 2.0]]},
    }
    data["stations"] = [2, None, 0, 0]
    assert Scenario.from_dict(data).to_dict() == data


def test_a_scenario_may_be_as_bare_as_its_servers(data):
    bare = {k: data[k] for k in ("schema", "slot_s", "servers")}
    scenario = Scenario.from_dict(bare)
    assert (scenario.slots, scenario.stations, scenario.workload) == (None, (0, 1, 2), None)
    assert scenario.to_dict() == bare


def test_equal_scenarios_have_equal_digests():
    whole = Scenario(1, (Server(10, 400, power_w=70),), workload=LAD.workload)
    again = Scenario.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert whole == again
    assert whole == Scenario(1.0, (Server(10.0, 400.0, power_w=70.0),), workload=LAD.workload)
    assert whole.digest() == again.digest()


def test_the_digest_sees_every_number_and_not_the_name(scenario, data):
    assert Scenario.from_dict(data, name="another").digest() == scenario.digest()
    for path in (["slot_s"], ["slots"], ["servers", 0, "capacity_gcycles_per_s"], ["workload", "by_index", "steps", 2]):
        assert Scenario.from_dict(changed(data, path, 7)).digest() != scenario.digest()


def test_the_digest_sees_what_is_in_a_trace(data, tmp_path):
    rows = "arrival_s,input_mbit,result_mbit,gcycles_per_step,steps\n0,1,1,1,1\n1,1,1,1,1\n{},1,1,1,1\n"
    data["workload"] = {"kind": "trace", "file": "trace.csv", "train_share": 0.5}
    made = []
    for place, last in (("a", 2), ("b", 2), ("c", 3)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "trace.csv").write_text(rows.format(last))
        made.append(Scenario.from_dict(data, folder=tmp_path / place))
    assert made[0] == made[1]
    assert made[0].digest() == made[1].digest()
    assert made[0] != made[2]
    assert made[0].digest() != made[2].digest()


def test_a_scenario_is_frozen(scenario):
    with pytest.raises(AttributeError):
        scenario.slot_s = 2.0


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (["colour"], "colour"),
        (["servers", 1, "colour"], "servers[1]"),
        (["workload", "colour"], "workload"),
        (["workload", "by_index", "colour"], "workload.by_index"),
    ],
)
def test_unknown_keys_are_refused_by_name(data, path, key):
    with pytest.raises(InputError, match="colour") as error:
        Scenario.from_dict(changed(data, path, 1))
    assert key in str(error.value)


@pytest.mark.parametrize("path", [["schema"], ["slot_s"], ["servers"], ["servers", 0, "capacity_gcycles_per_s"]])
def test_missing_keys_are_refused_by_name(data, path):
    place = data
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    with pytest.raises(InputError, match=path[-1]):
        Scenario.from_dict(data)


@pytest.mark.parametrize("key", ["kind", "tasks_per_station_and_slot", "input_mbit", "by_index"])
def test_a_workload_lacks_nothing(data, key):
    del data["workload"][key]
    with pytest.raises(InputError, match=key):
        Scenario.from_dict(data)


NAN, INF = float("nan"), float("inf")
BAD = [
    (["schema"], "diffpolicy.scenario/2", "schema"),
    (["schema"], None, "schema"),
    (["slot_s"], 0, "slot_s"),
    (["slot_s"], -1.5, "slot_s"),
    (["slot_s"], NAN, "slot_s"),
    (["slot_s"], INF, "slot_s"),
    (["slot_s"], "1", "slot_s"),
    (["slot_s"], True, "slot_s"),
    (["slot_s"], None, "slot_s"),
    (["slot_s"], 10**400, "slot_s"),
    (["slots"], 0, "slots"),
    (["slots"], 2.5, "slots"),
    (["slots"], "59", "slots"),
    (["slots"], True, "slots"),
    (["slots"], INF, "slots"),
    (["servers"], [], "servers", "[]"),
    (["servers"], {"a": 1}, "servers"),
    (["servers", 2], 5, "servers[2]"),
    (["servers", 1, "capacity_gcycles_per_s"], 0, "servers[1].capacity_gcycles_per_s"),
    (["servers", 1, "capacity_gcycles_per_s"], -3.0, "servers[1].capacity_gcycles_per_s"),
    (["servers", 1, "capacity_gcycles_per_s"], NAN, "servers[1].capacity_gcycles_per_s"),
    (["servers", 1, "capacity_gcycles_per_s"], [1], "servers[1].capacity_gcycles_per_s", "[1]"),
    (["servers", 0, "rate_mbit_per_s"], 0.0, "servers[0].rate_mbit_per_s"),
    (["servers", 0, "rate_mbit_per_s"], "fast", "servers[0].rate_mbit_per_s"),
    (["servers", 0, "power_w"], -1, "servers[0].power_w"),
    (["servers", 0, "price_per_hour"], NAN, "servers[0].price_per_hour"),
    (["servers", 0, "name"], 5, "servers[0].name"),
    (["servers", 0, "models"], "sd3", "servers[0].models"),
    (["servers", 0, "models"], [3], "servers[0].models", "3"),
    (["stations"], [], "stations", "[]"),
    (["stations"], 3, "stations"),
    (["stations"], [0, 3], "stations[1]", "3"),
    (["stations"], [-1], "stations[0]", "-1"),
    (["stations"], [0.5], "stations[0]", "0.5"),
    (["stations"], [None, "a"], "stations[1]", "'a'"),
    (["stations"], [True], "stations[0]", "True"),
    (["workload"], 5, "workload"),
    (["workload", "kind"], "carnival", "workload.kind"),
    (["workload", "tasks_per_station_and_slot"], [3, 2], "workload.tasks_per_station_and_slot", "[3, 2]"),
    (["workload", "tasks_per_station_and_slot"], [-1, 2], "workload.tasks_per_station_and_slot[0]", "-1"),
    (["workload", "tasks_per_station_and_slot"], [0, 0], "workload.tasks_per_station_and_slot[1]", "0"),
    (["workload", "tasks_per_station_and_slot"], [1], "workload.tasks_per_station_and_slot", "1"),
    (["workload", "tasks_per_station_and_slot"], 3, "workload.tasks_per_station_and_slot"),
    (["workload", "tasks_per_station_and_slot"], [1, 2.5], "workload.tasks_per_station_and_slot[1]", "2.5"),
    (["workload", "input_mbit"], [5.0, 2.0], "workload.input_mbit", "[5, 2]"),
    (["workload", "input_mbit"], [-1.0, 2.0], "workload.input_mbit[0]", "-1.0"),
    (["workload", "input_mbit"], [1.0, NAN], "workload.input_mbit[1]", "nan"),
    (["workload", "by_index"], [1], "workload.by_index", "[1]"),
    (["workload", "by_index", "steps", 1], 0, "workload.by_index.steps[1]"),
    (["workload", "by_index", "steps", 1], 1.5, "workload.by_index.steps[1]"),
    (["workload", "by_index", "gcycles_per_step", 3], -0.1, "workload.by_index.gcycles_per_step[3]"),
    (["workload", "by_index", "gcycles_per_step", 3], "x", "workload.by_index.gcycles_per_step[3]"),
    (["workload", "by_index", "result_mbit", 0], INF, "workload.by_index.result_mbit[0]"),
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: json.dumps(case[:2], default=str)[:60])
def test_bad_values_are_refused_with_their_key_and_value(data, case):
    path, value, key, *got = case
    with pytest.raises(InputError) as error:
        Scenario.from_dict(changed(data, path, value))
    message = str(error.value)
    assert message.startswith(f"{key} ")
    assert f"got {got[0] if got else repr(value)[:50]}" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["steps", "gcycles_per_step", "result_mbit"])
def test_a_table_shorter_than_the_tasks_is_refused(data, name):
    data["workload"]["by_index"][name] = data["workload"]["by_index"][name][:3]
    with pytest.raises(InputError, match=rf"by_index\.{name} (has )?3\b"):
        Scenario.from_dict(data)


@pytest.mark.parametrize("value", [5, "text", None, [1, 2]])
def test_a_scenario_that_is_no_object_is_refused(value):
    with pytest.raises(InputError, match="scenario must be an object"):
        Scenario.from_dict(value)


def test_values_are_checked_when_a_scenario_is_made_in_python():
    with pytest.raises(InputError, match=r"capacity_gcycles_per_s .* -1"):
        Scenario(1.0, (Server(-1, 400),))


# The released draws


TIMES = {"text_s": 0.1, "megapixels": (0.25, 1.0), "step_s": (0.02, 0.1), "decode_s": (0.05, 0.2)}
SERVER = {"capacity_gcycles_per_s": 3.0, "rate_mbit_per_s": 4.0}
MADE = [
    (Server, SERVER, {"capacity_gcycles_per_s": 0}, "capacity_gcycles_per_s must be greater than 0, got 0"),
    (Server, SERVER, {"capacity_gcycles_per_s": "9"}, "capacity_gcycles_per_s must be a number, got '9'"),
    (Server, SERVER, {"rate_mbit_per_s": 1e13}, r"rate_mbit_per_s must be at most 1e\+12"),
    (Server, SERVER, {"power_w": -1}, "power_w must be at least 0, got -1"),
    (Server, SERVER, {"name": 3}, "name must be a string, got 3"),
    (Server, SERVER, {"models": "sd3"}, "models must be a list, got 'sd3'"),
    (Server, SERVER, {"availability": {"mtbf_s": 1}}, "availability must be Availability or None"),
    (Server, SERVER, {"service": TIMES}, "service must be ServerService or None"),
    (Availability, {}, {}, "down_s, or mtbf_s and mttr_s, must be given"),
    (Availability, {}, {"mtbf_s": 3.0}, "down_s, or mtbf_s and mttr_s, must be given"),
    (Availability, {}, {"down_s": ((1, 2),), "mttr_s": 3.0}, "down_s and mttr_s must not both be given"),
    (Availability, {}, {"down_s": ((1, 3), (2, 4))}, r"down_s\[1\] must be \[from, to\] after the interval before it"),
    (Availability, {}, {"mtbf_s": 0.0, "mttr_s": 3.0}, "mtbf_s must be greater than 0, got 0"),
    (ModelTimes, TIMES, {"text_s": -1}, "text_s must be at least 0, got -1"),
    (ModelTimes, TIMES, {"step_s": (0.1,)}, r"must be equally long, got \[2, 1, 2\] entries"),
    (ModelTimes, TIMES, {"megapixels": (1.0, 0.5)}, r"megapixels must increase, got \[1.0, 0.5\]"),
    (ModelTimes, TIMES, {"decode_s": (0.1, -1)}, r"decode_s\[1\] must be at least 0, got -1"),
    (ModelTimes, {"text_s": 0.0}, dict.fromkeys(list(TIMES)[1:], ()), "megapixels must hold at least one size"),
    (ServerService, {}, {"models": {}}, "models must be an object with at least one model"),
    (ServerService, {}, {"models": {"a": TIMES}}, "models.a must be a ModelTimes"),
    (ServerService, {"models": {"a": ModelTimes(**TIMES)}}, {"scatter": 11}, "scatter must be at most 10, got 11"),
    (ServerService, {"models": {"a": ModelTimes(**TIMES)}}, {"batch": (2.0,)}, r"batch must begin with 1, got \[2.0\]"),
    (ServerService, {"models": {"a": ModelTimes(**TIMES)}}, {"joins": 1}, "joins must be true or false, got 1"),
    (Scenario, {"slot_s": 1.0}, {"servers": (SERVER,)}, r"servers\[0\] must be a Server, got {"),
    (Scenario, {"slot_s": 1.0, "servers": (Server(1, 1),)}, {"workload": {}}, "workload must be a Workload, Req"),
    (Scenario, {"slot_s": 1.0, "servers": (Server(1, 1),)}, {"name": 3}, "name must be a string, got 3"),
]


@pytest.mark.parametrize("case", MADE, ids=lambda case: f"{case[0].__name__} {case[2]}"[:50])
def test_what_is_made_in_python_is_checked_where_it_is_made(case):
    kind, others, value, says = case
    with pytest.raises(InputError, match=says):
        kind(**{**others, **value})


def test_whole_numbers_become_those_that_a_file_has():
    assert Server(3, 4).to_dict() == Server.from_dict(SERVER, "server").to_dict() == SERVER


@pytest.mark.parametrize(
    "path",
    [
        ["workload", "input_mbit", 1],
        ["workload", "by_index", "gcycles_per_step", 0],
        ["workload", "by_index", "result_mbit", 0],
        ["servers", 0, "power_w"],
        ["servers", 0, "price_per_hour"],
    ],
)
def test_sizes_have_an_end_as_capacities_do(data, path):
    with pytest.raises(InputError, match=r"must be at most 1e\+12, got 10000000000000.0"):
        Scenario.from_dict(changed(data, path, 1e13))


@pytest.mark.parametrize(
    ("law", "says"),
    [
        ({"kind": "poisson", "rate_per_s": 1e-13}, "workload.rate_per_s must be at least 1e-12"),
        ({"kind": "poisson", "rate_per_s": 1e13}, r"workload.rate_per_s must be at most 1e\+12"),
        ({"kind": "on-off", "rate_per_s": 1.0, "on_s": 1.0, "off_s": 1e13}, r"workload.off_s must be at most 1e\+12"),
        ({"kind": "daily", "rate_per_s": 1.0, "period_s": 1e-13, "amplitude": 1}, "workload.period_s must be at least"),
        ({"kind": "poisson", "rate_per_s": 1.0, "weight": 1e308}, r"workload.mix\[0\].weight must be at most 1e\+12"),
    ],
)
def test_rates_and_times_of_arrivals_have_ends(data, law, says):
    law = dict(law)
    kind = {"width": 512, "height": 512, "steps": 20, "gcycles_per_step": 0.1, "input_mbit": 1.0, "result_mbit": 2.0}
    mix = [{**kind, "weight": law.pop("weight", 1.0)}]
    with pytest.raises(InputError, match=says):
        Scenario.from_dict({**data, "workload": {**law, "mix": mix}})


def test_the_paper_has_the_draws_of_the_released_code():
    f = np.random.RandomState(2).randint(10, 51, 20)
    v = np.random.RandomState(5).randint(400, 501, 20)
    assert [s.capacity_gcycles_per_s for s in LAD.servers] == f.tolist()
    assert [s.rate_mbit_per_s for s in LAD.servers] == v.tolist()
    assert LAD.workload.gcycles_per_step == tuple(np.random.RandomState(1).uniform(0.1024, 0.3072, 50))
    assert LAD.workload.steps == tuple(np.random.RandomState(1).randint(1, 15, 50))
    assert LAD.workload.result_mbit == tuple(np.random.RandomState(1).uniform(0.6, 1, 50))
    assert (LAD.slot_s, LAD.slots, LAD.workload.tasks_per_station_and_slot) == (1.0, 59, (1, 50))
    assert LAD.workload.input_mbit == (2.0, 5.0)


@pytest.mark.parametrize("stations", [1, 5, 20, 35])
def test_stations_are_drawn_anew_from_the_same_seeds(stations):
    scenario = LAD.override(stations=stations)
    f = np.random.RandomState(2).randint(10, 51, stations)
    v = np.random.RandomState(5).randint(400, 501, stations)
    assert [(s.capacity_gcycles_per_s, s.rate_mbit_per_s) for s in scenario.servers] == list(zip(f, v, strict=True))
    assert scenario.stations == tuple(range(stations))
    assert scenario.workload == LAD.workload


def test_capacities_are_drawn_from_their_range_and_rates_stay():
    scenario = LAD.override(capacity=(10, 20))
    assert [s.capacity_gcycles_per_s for s in scenario.servers] == np.random.RandomState(2).randint(10, 21, 20).tolist()
    assert [s.rate_mbit_per_s for s in scenario.servers] == [s.rate_mbit_per_s for s in LAD.servers]


def test_steps_are_drawn_from_their_range_without_its_end():
    scenario = LAD.override(steps=(5, 8))
    assert scenario.workload.steps == tuple(np.random.RandomState(1).randint(5, 8, 50))
    assert set(scenario.workload.steps) == {5, 6, 7}
    assert scenario.workload.gcycles_per_step == LAD.workload.gcycles_per_step


def test_overrides_join():
    scenario = LAD.override(stations=3, tasks=7, slots=4, capacity=(10, 20), steps=(1, 3))
    assert [s.capacity_gcycles_per_s for s in scenario.servers] == np.random.RandomState(2).randint(10, 21, 3).tolist()
    assert (scenario.slots, scenario.workload.max_tasks, set(scenario.workload.steps)) == (4, 7, {1, 2})


@pytest.mark.parametrize("name", ["gcycles_per_step", "steps", "result_mbit"])
def test_more_indices_continue_the_tables_and_change_none(name):
    short, long, longer = (getattr(LAD.override(tasks=n).workload, name) for n in (50, 70, 120))
    assert len(long) >= 70
    assert long[:50] == short
    assert longer[: len(long)] == long
    rng = np.random.RandomState(1)
    draw = {
        "gcycles_per_step": lambda: rng.uniform(0.1024, 0.3072, 70),
        "steps": lambda: rng.randint(1, 15, 70),
        "result_mbit": lambda: rng.uniform(0.6, 1, 70),
    }
    assert long[:70] == tuple(draw[name]())


@pytest.mark.parametrize(
    ("overrides", "load"),
    [
        ({}, 1.24),
        ({"tasks": 10}, 0.24),
        ({"tasks": 40}, 0.98),
        ({"tasks": 70}, 1.71),
        ({"capacity": (10, 20)}, 2.62),
    ],
)
def test_load_factors_of_the_sweeps(overrides, load):
    assert LAD.override(**overrides).load_factor() == pytest.approx(load, abs=0.005)


def test_the_load_factor_is_the_mean_of_what_arrives(scenario):
    drawn = [scenario.workload.draw(0, Stream.EVALUATION, k, 0, 3) for k in range(4000)]
    present = np.stack([np.arange(4) < x.counts[:, None] for x in drawn])
    offered = (present * np.stack([x.work_gcycles for x in drawn])).sum((1, 2)) / (19 * 0.5)
    assert scenario.load_factor() == pytest.approx(offered.mean(), abs=5 * offered.std() / 4000**0.5)


def test_no_override_changes_nothing():
    assert LAD.override() == LAD


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        ({"tasks": 0}, "tasks", "0"),
        ({"tasks": 2.5}, "tasks", "2.5"),
        ({"stations": 0}, "stations", "0"),
        ({"slots": -3}, "slots", "-3"),
        ({"capacity": (0, 5)}, "capacity", "0"),
        ({"capacity": (20, 10)}, "capacity", "20:10"),
        ({"capacity": (1, 10**19)}, "capacity", str(10**19)),
        ({"steps": (5, 5)}, "steps", "5:5"),
        ({"steps": (1, 10**19)}, "steps", str(10**19)),
        ({"steps": (0, 5)}, "steps", "0"),
    ],
)
def test_bad_overrides_are_refused_with_their_key_and_value(overrides, key, value):
    with pytest.raises(InputError, match=rf"{key}.*got.*(?<![\d.]){value}(?![\d.])"):
        LAD.override(**overrides)


@pytest.mark.parametrize("overrides", [{"tasks": 5}, {"steps": (1, 5)}])
def test_tasks_cannot_be_overridden_without_a_workload(overrides):
    with pytest.raises(InputError, match="no workload"):
        Scenario(1.0, LAD.servers).override(**overrides)


# Arrivals


def draw(scenario, seed=0, stream=Stream.EVALUATION, episode=0, slot=0, stations=3):
    return scenario.workload.draw(seed, stream, episode, slot, stations)


def same(a, b):
    return all(np.array_equal(getattr(a, x), getattr(b, x)) for x in a.__dataclass_fields__)


def test_arrivals_depend_on_their_four_numbers_alone(scenario):
    before = draw(scenario, 3, Stream.TRAINING, 7, 2)
    np.random.default_rng(0).random(5)
    draw(scenario, 3, Stream.TRAINING, 8, 2)
    assert same(before, draw(scenario, 3, Stream.TRAINING, 7, 2))


@pytest.mark.parametrize("other", [{"seed": 1}, {"stream": Stream.TRAINING}, {"episode": 1}, {"slot": 1}])
def test_each_of_the_four_numbers_changes_the_arrivals(scenario, other):
    assert not np.array_equal(draw(scenario).input_mbit, draw(scenario, **other).input_mbit)


def test_the_streams_never_meet(scenario):
    def inputs(stream):
        return {
            draw(scenario, seed, stream, k, t).input_mbit.tobytes()
            for seed in range(3)
            for k in range(10)
            for t in range(10)
        }

    evaluation, training = inputs(Stream.EVALUATION), inputs(Stream.TRAINING)
    assert len(evaluation) == len(training) == 300
    assert not evaluation & training


def test_arrivals_follow_the_law(scenario):
    drawn = [draw(scenario, episode=k, stations=8) for k in range(500)]
    counts = np.concatenate([x.counts for x in drawn])
    inputs = np.concatenate([x.input_mbit.ravel() for x in drawn])
    np.testing.assert_allclose(np.bincount(counts, minlength=5) / 4000, 0.2, atol=0.03)
    assert (inputs >= 2).all()
    assert (inputs < 5).all()
    assert inputs.mean() == pytest.approx(3.5, abs=0.05)
    work = np.array(scenario.workload.gcycles_per_step) * np.array(scenario.workload.steps)
    for x in drawn[:3]:
        np.testing.assert_array_equal(x.work_gcycles, np.broadcast_to(work, (8, 4)))
        np.testing.assert_array_equal(x.result_mbit, np.broadcast_to(scenario.workload.result_mbit, (8, 4)))


def test_a_fixed_number_of_tasks_is_possible():
    workload = Workload((2, 2), (1, 1), (1.0, 1.0), (1, 1), (0.0, 0.0))
    drawn = workload.draw(0, Stream.EVALUATION, 0, 0, 4)
    assert drawn.counts.tolist() == [2] * 4
    assert (drawn.input_mbit == 1).all()
