"""The released LAD-TS environment, to the last digits: task files replayed through it are replayed here."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from diffpolicy.edge import Scenario, TaskList, make_policy, replay

DATA = Path(__file__).parent / "data" / "parity"
FILES = ["small", "paper", "overload"]


def recorded(path, column):
    with path.open(newline="") as file:
        return np.array([float(row[column]) for row in csv.DictReader(file)])


def test_the_recordings_are_there():
    assert {p.name for p in DATA.iterdir()} >= {f"{n}.{s}" for n in FILES for s in ("scenario.json", "tasks.csv.gz")}


@pytest.mark.parametrize("name", FILES)
def test_recorded_decisions_have_the_recorded_delays(parity, name):
    scenario_file, tasks_file = parity(name)
    scenario = Scenario.load(scenario_file)
    result = replay(scenario, TaskList.read(tasks_file, scenario, decisions=True))
    assert len(result.delay_s) >= 36
    np.testing.assert_array_equal(result.server, recorded(tasks_file, "server"))
    np.testing.assert_allclose(result.delay_s, recorded(tasks_file, "delay_s"), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", FILES)
def test_opt_ts_decides_as_the_released_greedy_rule(parity, name):
    scenario_file, tasks_file = parity(name)
    scenario = Scenario.load(scenario_file)
    result = replay(scenario, TaskList.read(tasks_file, scenario), make_policy("opt-ts", scenario))
    np.testing.assert_array_equal(result.server, recorded(tasks_file, "greedy_server"))
    np.testing.assert_allclose(result.delay_s, recorded(tasks_file, "greedy_delay_s"), rtol=0, atol=1e-9)


def test_the_built_in_scenario_is_the_paper_number_for_number():
    path = DATA / "lad_ts.scenario.json"
    assert Scenario.load(path) == Scenario.load("lad-ts")
    assert Scenario.load("lad-ts").to_dict() == json.loads(path.read_text())
    assert Scenario.load(path).digest() == Scenario.load("lad-ts").digest()


def test_recorded_decisions_through_the_command_line(parity, cli, tmp_path):
    scenario_file, tasks_file = parity("small")
    out = tmp_path / "out.csv"
    result = cli("replay", "--scenario", scenario_file, "--tasks", tasks_file, "--out", out, "--json")
    assert result.status == 0, result.err
    then, now = (list(csv.DictReader(p.open(newline=""))) for p in (tasks_file, out))
    assert list(now[0]) == list(then[0])
    for a, b in zip(then, now, strict=True):
        assert float(b.pop("delay_s")) == pytest.approx(float(a.pop("delay_s")), abs=1e-9)
        assert a == b
    assert json.loads(result.out)["mean_delay_s"] == pytest.approx(recorded(tasks_file, "delay_s").mean(), abs=1e-9)
