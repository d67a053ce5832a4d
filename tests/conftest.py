"""What all tests share: one thread, small scenarios, and the command line in this process."""

import gc
import gzip
import json
import os
from collections import namedtuple
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from diffpolicy import ActionMemory, DiffusionPolicy
from diffpolicy.edge import OffloadingEnv, Scenario, TaskList

# a model that is not there is refused at once, without asking a hub for it
os.environ.setdefault("HF_HUB_OFFLINE", "1")

DATA = Path(__file__).parent / "data"
COLUMNS = "slot,origin,input_mbit,result_mbit,gcycles_per_step,steps,server"
Run = namedtuple("Run", "status out err")


def pytest_collection_finish():
    """Keeps the garbage collector from what was imported: never garbage, and a tenth of the time to look at."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Gives each process neighbours, which share fixtures, and whoever is done early a part of what is left."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def no_pictures(monkeypatch):
    """Commands that draw nothing of what they write: seconds less, where pictures do not matter."""
    monkeypatch.setattr("diffpolicy.experiments.plots.draw", lambda path, *_, **__: [])


@pytest.fixture
def few_fleets(monkeypatch):
    """Fleet training on two fleets and five updates a round and one pair a generation, where it need not learn."""
    from diffpolicy.edge.pricing.training import train

    monkeypatch.setattr(train, "FLEETS", 2)
    monkeypatch.setattr(train, "ImitationModule", partial(train.ImitationModule, updates=5, batch_size=64))
    for name, recipe in train.RECIPES.items():
        monkeypatch.setitem(train.RECIPES, name, replace(recipe, pairs=1))


@pytest.fixture
def scenario():
    """Three unequal servers, a station each, at most four tasks a slot, five slots, load near one."""
    return Scenario.from_dict(
        {
            "schema": "diffpolicy.scenario/1",
            "slot_s": 0.5,
            "slots": 5,
            "servers": [
                {"capacity_gcycles_per_s": f, "rate_mbit_per_s": v} for f, v in ((4.0, 50.0), (9.0, 40.0), (6.0, 45.0))
            ],
            "workload": {
                "kind": "lad-ts",
                "tasks_per_station_and_slot": [0, 4],
                "input_mbit": [2.0, 5.0],
                "by_index": {
                    "gcycles_per_step": [0.25, 0.5, 0.75, 0.125],
                    "steps": [3, 4, 2, 9],
                    "result_mbit": [0.5, 0.75, 1.0, 0.25],
                },
            },
        }
    )


@pytest.fixture
def parity(tmp_path):
    """`parity(name)`: paths of a scenario and of its unpacked task file, recorded from the released environment."""

    def unpack(name):
        tasks = tmp_path / f"{name}.tasks.csv"
        tasks.write_bytes(gzip.decompress((DATA / "parity" / f"{name}.tasks.csv.gz").read_bytes()))
        return DATA / "parity" / f"{name}.scenario.json", tasks

    return unpack


@pytest.fixture
def write_tasks(tmp_path):
    """`write_tasks(*rows, columns=...)`: the path of a task file."""

    def write(*rows, columns=COLUMNS, name="tasks.csv"):
        path = tmp_path / name
        path.write_text("\n".join([columns, *rows]) + "\n")
        return path

    return write


@pytest.fixture
def read_tasks(write_tasks, scenario):
    """`read_tasks(*rows, columns=...)`: a task list against the scenario of three servers."""

    def read(*rows, columns=COLUMNS, decisions=False, against=None):
        return TaskList.read(write_tasks(*rows, columns=columns), against or scenario, decisions=decisions)

    return read


@pytest.fixture
def cli(capsys):
    """`cli(*argv)`: status, stdout and stderr of a command that runs in this process."""
    from diffpolicy.cli.main import main

    def run(*argv):
        capsys.readouterr()
        try:
            status = main([str(word) for word in argv])
        except SystemExit as stop:
            status = stop.code
        return Run(status, *capsys.readouterr())

    return run


@pytest.fixture
def refused(cli, tmp_path):
    """`refused(*argv, says=[...])`: the command ends with 2, one sentence that holds all of `says`, and no new file."""

    def run(*argv, says=()):
        before = {p for p in tmp_path.rglob("*") if p.is_file()}
        result = cli(*argv)
        assert result.status == 2, result
        assert result.out == ""
        assert result.err.endswith("\n")
        assert len(result.err.splitlines()) == 1, result.err
        assert result.err.startswith("diffpolicy")
        assert "Traceback" not in result.err
        for text in says:
            assert str(text) in result.err
        assert {p for p in tmp_path.rglob("*") if p.is_file()} == before
        return result.err

    return run


@pytest.fixture
def scenario_file(tmp_path, scenario):
    """The scenario of three servers as a file."""
    path = tmp_path / "three.json"
    path.write_text(json.dumps(scenario.to_dict()))
    return path


@pytest.fixture
def policy_folder(tmp_path, scenario):
    """A small policy that fits the scenario of three servers, saved."""
    policy = DiffusionPolicy.from_specs(OffloadingEnv(scenario), prior=ActionMemory(), steps=2)
    return policy.save(tmp_path / "policy")
