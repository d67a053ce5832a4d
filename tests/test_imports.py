"""What is loaded when, and that every public name is there."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import diffpolicy

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchrl", "tensordict", "lightning", "matplotlib", "diffusers", "transformers", "httpx")


def loaded(code):
    """Which of the heavy packages are loaded after some code ran in an interpreter of its own, and its status."""
    script = f"{code}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules], file=sys.__stdout__)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1], done.stderr


def after(*argv):
    return loaded(
        "import os, sys\n"
        "from diffpolicy.cli.main import main\n"
        "try:\n"
        f"    status = main({list(map(str, argv))!r})\n"
        "except SystemExit as stop:\n"
        "    status = stop.code\n"
        f"assert status == {0 if '--help' in argv or '--version' in argv else 2}, status\n"
    )


def test_importing_the_package_loads_nothing_heavy():
    assert loaded("import diffpolicy, diffpolicy.edge, diffpolicy.edge.hardware, diffpolicy.errors")[0] == "[]"


def test_policies_environments_and_evaluation_load_neither_lightning_nor_matplotlib():
    names = "HEURISTICS, OffloadingEnv, evaluate, make_policy, replay"
    code = f"from diffpolicy import DiffusionPolicy\nfrom diffpolicy.edge import {names}"
    assert loaded(code)[0] == "['torch', 'torchrl', 'tensordict']"


def test_scenarios_and_task_files_load_nothing_heavy():
    assert loaded("from diffpolicy.edge import Scenario, TaskList\nScenario.load('lad-ts').load_factor()")[0] == "[]"


def test_workloads_profiles_and_calibration_load_nothing_heavy():
    code = (
        "from diffpolicy.edge import Availability, ModelTimes, RequestWorkload, ServerService, TraceWorkload\n"
        "from diffpolicy.edge.hardware import HttpAdapter, ServerProfile, SimulatedAdapter, calibrate, profile\n"
        "calibrate([ServerProfile.load('tiny-cpu')], accept_poor_fit=True)"
    )
    assert loaded(code)[0] == "[]"


def test_the_adapter_of_diffusers_loads_it_only_when_it_starts():
    assert loaded("from diffpolicy.edge.hardware import DiffusersAdapter")[0] == "['torch']"


def test_an_emulated_worker_and_the_dispatchers_way_to_it_load_no_torch():
    pytest.importorskip("fastapi")
    code = (
        "from diffpolicy.edge.serving.worker.serve_worker import serve_worker\n"
        "from diffpolicy.edge.serving.worker.engines import make_engine\n"
        "from diffpolicy.edge.serving import HttpUpstream\n"
        "make_engine('emulate:tiny-cpu@2')"
    )
    assert loaded(code)[0] == "[]"


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["worker", "--help"], ["compare", "--help"], ["train", "--help"]]
)
def test_help_loads_nothing_heavy(argv):
    assert after(*argv)[0] == "[]"


@pytest.mark.parametrize(
    "argv",
    [
        ["list", "nonsense"],
        ["nonsense"],
        ["evaluate", "opt-ts", "--nonsense"],
        ["evaluate", "opt-ts", "--episodes", "0"],
        ["evaluate", "nonsense"],
        ["evaluate", "opt-ts", "--baseline", "nonsense"],
        ["evaluate", "no/such/folder"],
        ["evaluate", "opt-ts", "--scenario", "missing.json"],
        ["replay", "--scenario", "missing.json", "--tasks", "missing.csv"],
        ["replay", "--scenario", "lad-ts", "--tasks", "missing.csv"],
        ["replay", "--scenario", "lad-ts", "--tasks", "missing.csv", "--policy", "nonsense"],
        ["train", "nonsense"],
        ["train", "missing.yaml"],
        ["train", "lad-ts", "--config", "missing.yaml"],
        ["compare", "--methods", "nonsense"],
        ["compare", "--minutes", "nan"],
    ],
    ids=" ".join,
)
def test_a_mistake_is_refused_before_anything_heavy_is_loaded(argv):
    modules, message = after(*argv)
    assert modules == "[]"
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["diffpolicy", "diffpolicy.edge", "diffpolicy.edge.hardware", "diffpolicy.training", "diffpolicy.policies"]
)
def test_every_public_name_is_there(name):
    package = importlib.import_module(name)
    for public in package.__all__:
        assert getattr(package, public) is not None
        assert public in dir(package)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert diffpolicy.__version__ == version("diffpolicy")


def test_the_names_that_the_command_line_knows_are_those_that_exist():
    from diffpolicy.edge import HEURISTICS
    from diffpolicy.edge.names import HEURISTIC_NAMES, METHOD_NAMES

    assert tuple(HEURISTICS) == HEURISTIC_NAMES
    presets = Path(importlib.import_module("diffpolicy.edge").__file__).parent / "presets"
    assert {p.stem for p in presets.glob("*.yaml")} == set(METHOD_NAMES)


def test_layers_import_only_what_lies_below_them():
    linter = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert linter is not None, "pip install -e '.[test]'"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
