"""What a command meets around it, and input that no one can mean: one sentence, nothing lost, nothing left changed."""

import csv
import io
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

import diffpolicy
from diffpolicy import InputError, Policy, _files, _yaml
from diffpolicy._imports import import_attribute, working_folder
from diffpolicy._read import read_bytes, what_is
from diffpolicy._text_table import render
from diffpolicy.cli import streams
from diffpolicy.cli.main import main
from diffpolicy.edge import OffloadingEnv, RequestType, Scenario, Stream, task_transitions
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.scenario.availability import Availability, Timeline
from diffpolicy.edge.workload import laws
from diffpolicy.edge.workload.laws import Daily, Gamma, OnOff, Poisson, arrival_times
from diffpolicy.environments.data_set import read_data
from diffpolicy.environments.decision_log import read_decisions
from diffpolicy.environments.entrants import check_policy, make_policy
from diffpolicy.experiments.method_names import make_method
from diffpolicy.experiments.problem_names import make_problem
from diffpolicy.methods import DiffusionSACMethod, DQNMethod, parse_method
from diffpolicy.training import checkpoint

SRC = os.path.dirname(os.path.dirname(diffpolicy.__file__))
TINY = ["--stations", "2", "--slots", "2", "--tasks", "3"]
EVALUATE = ["evaluate", "opt-ts", "random", *TINY, "--episodes", "1"]


def environment(**changes):
    """The variables of a process, the package's folder among them."""
    return {**os.environ, "PYTHONPATH": SRC, "OMP_NUM_THREADS": "1", **changes}


def shell(line, *argv, **options):
    """A process of the command line under `sh`, where "$@" stands for the command."""
    command = ["sh", "-c", line, "sh", sys.executable, "-m", "diffpolicy", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **{"env": environment(), **options})


def printing(folder):
    """A command that prints a table and loads nothing heavy."""
    return ["calibrate", "tiny-cpu", "--accept-poor-fit", "--out", str(folder / "scenario.json")]


# Surroundings


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_change_no_result(tmp_path, closed):
    for argv, status in ((printing(tmp_path), 0), (["--help"], 0), (["evaluate", "nonsense"], 2)):
        done = shell(f'"$@" {closed}', *argv)
        assert done.returncode == status
        assert "Traceback" not in done.stderr
        assert bool(done.stdout) == (closed == "2>&-" and status == 0)
    assert json.loads((tmp_path / "scenario.json").read_text())


def test_what_is_printed_lands_in_no_file_that_took_the_number_of_a_closed_stream(tmp_path):
    argv = ["tasks", "azure-sample", "--steps", 4, "--out", tmp_path / "tasks.csv"]
    assert shell('"$@" >&- 2>&- <&-', *argv).returncode == 0
    with open(tmp_path / "tasks.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert len({len(row) for row in rows}) == 1


def test_a_full_stdout_is_one_sentence_and_status_1(tmp_path):
    for argv in (printing(tmp_path), [*printing(tmp_path), "--json"], ["--help"], ["--version"]):
        done = shell('"$@" > /dev/full', *argv)
        assert done.returncode == 1
        assert done.stderr == "diffpolicy: cannot write to stdout: No space left on device\n"


def test_a_reader_that_went_away_is_no_error_of_ours(tmp_path):
    for argv in (printing(tmp_path), ["--help"]):
        done = shell('{ "$@"; echo "status $?" >&2; } | true', *argv)
        assert done.stderr.splitlines() == ["status 141"]


def test_progress_that_nobody_reads_does_not_end_the_work(tmp_path):
    argv = ["train", "sac-ts", *TINY, "--episodes", 2, "--out", tmp_path / "run"]
    done = shell('"$@" 2> /dev/full', *argv)
    assert done.returncode == 0
    assert "2 episodes" in done.stdout
    assert (tmp_path / "run" / "policy.json").is_file()


def test_an_output_without_colours_or_foreign_signs_holds_none(tmp_path):
    env = environment(PYTHONIOENCODING="ascii", LC_ALL="C", FORCE_COLOR="1", COLUMNS="1", TERM="xterm")
    done = shell('"$@"', *printing(tmp_path), env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) > 60
    done = shell('"$@"', "evaluate", "mine_ü", env=env)
    assert done.returncode == 2
    assert r"mine_\xfc" in done.stderr
    assert shell('"$@"', "evaluate", "--help", env=env).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_path_that_is_no_utf8_is_written_to_and_printed(tmp_path):
    out = os.fsencode(tmp_path) + b"/\xff.json"
    argv = [*printing(tmp_path)[:-1], out]
    done = subprocess.run(
        [sys.executable, "-m", "diffpolicy", *argv], capture_output=True, timeout=60, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert rb"\udcff.json" in done.stdout
    assert os.path.exists(out)


def test_tables_keep_brackets_colons_and_long_names():
    long = "runs/" + "x" * 300
    text = render(
        "of [bold]", ["policy [red]", "s"], [["x [red]", ":smile:"], ["[/]", "\x1b[31m\n\ud800"], [long, "1"]]
    )
    for part in ("of [bold]", "policy [red]", "x [red]", ":smile:", "[/]", r"\x1b[31m\n\ud800", long):
        assert part in text


def test_a_policy_folder_named_like_markup_keeps_its_name(cli, policy_folder, scenario_file):
    odd = policy_folder.rename(policy_folder.parent / "x [red] :smile:")
    result = cli("evaluate", odd, "--scenario", scenario_file, "--episodes", 1)
    assert result.status == 0, result.err
    assert str(odd) in result.out


def test_commands_that_draw_nothing_import_no_matplotlib(tmp_path):
    train = ["train", "sac-ts", *TINY, "--episodes", "1", "--out", "run"]
    script = (
        "import sys\nfrom diffpolicy.cli.main import main\n"
        f"for argv in ({EVALUATE!r}, {train!r}):\n"
        "    assert main(argv) == 0\n"
        "    assert not [m for m in sys.modules if m.split('.')[0] == 'matplotlib'], argv\n"
        "    assert ('lightning' in sys.modules) == ('train' in argv), argv\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_commands_without_a_policy_load_nothing_heavy(tmp_path):
    script = (
        f"from diffpolicy.cli.main import main\nassert main({printing(tmp_path)!r}) == 0\n"
        "import sys\nassert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment()).returncode == 0


def test_a_home_that_cannot_be_written_to_is_no_matter(tmp_path):
    (tmp_path / "file").write_text("")
    env = environment(HOME=str(tmp_path / "file"), MPLBACKEND="Agg")
    for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        env.pop(name, None)
    script = (
        "from diffpolicy.cli import surroundings\nsurroundings.settle()\n"
        "import os, matplotlib\nprint(matplotlib.get_configdir() == os.environ['MPLCONFIGDIR'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=env)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_pictures_leave_the_backend_alone_and_keep_names(tmp_path):
    script = (
        "import matplotlib\nmatplotlib.use('svg')\n"
        "from diffpolicy._draw import canvas\n"
        "assert matplotlib.get_backend().lower() == 'svg'\n"
        "import sys\nassert 'matplotlib.pyplot' not in sys.modules\n"
        "figure = canvas.figure_of(2)\naxes = figure.subplots()\n"
        "for name in ('_hidden', 'a $b$ _{', '[red]', '\\ud800'):\n"
        "    axes.plot([1], label=canvas.plain(name))\n"
        "axes.legend()\ncanvas.save(figure, sys.argv[1])\n"
        "assert len(axes.get_legend().get_texts()) == 4\n"
        "assert matplotlib.get_backend().lower() == 'svg'\n"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path / "x.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


# Names


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x/\udc00y"])
@pytest.mark.parametrize(
    "argv",
    [
        ["evaluate"],
        ["evaluate", "opt-ts", "--scenario"],
        ["train"],
        ["train", "sac-ts", "--out"],
        ["train", "sac-ts", "--config"],
        ["compare", "--out"],
        ["replay", "--scenario", "lad-ts", "--tasks"],
        ["tasks"],
        ["calibrate", "--out", "x.json"],
        ["export", "pretrained:live", "--out"],
    ],
    ids=" ".join,
)
def test_a_name_that_no_file_can_have_is_refused(refused, monkeypatch, tmp_path, argv, name):
    monkeypatch.chdir(tmp_path)
    refused(*argv, name, says=[repr(name)])


def test_messages_move_no_cursor(refused):
    message = refused("evaluate", "no\x1b[2Jpolicy\r", says=["no"])
    assert "\x1b" not in message


def test_names_of_modules_change_no_path(tmp_path, monkeypatch):
    (tmp_path / "mine_here.py").write_text("thing = 3\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert import_attribute("mine_here:thing", "policy") == 3
    with pytest.raises(InputError, match="no module"):
        import_attribute("mine_nowhere:thing", "policy")
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("mine_here.py:thing", "mine_here:thing"),
        ("./mine_here.py:thing", "mine_here:thing"),
        ("of/mine_here.py:thing", "of.mine_here:thing"),
        ("mine_here.py", "mine_here:NAME, NAME being a name in that file"),
    ],
)
@pytest.mark.parametrize("make", [make_problem, make_method, lambda text: make_policy(text, make_problem("clinic"))])
def test_a_file_where_a_module_is_asked_for_is_told_the_module(tmp_path, monkeypatch, text, meant, make):
    (tmp_path / "mine_here.py").write_text("thing = 3\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(f"; did you mean {meant}?") + "$"):
        make(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1 +\n", "SyntaxError"),
        ("\n\nraise KeyError('why')\n", r"KeyError: 'why' in line 3 of broken_"),
        ("import no_such_module_at_all\n", "no_such_module_at_all"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_module_that_fails_is_refused_with_its_line(tmp_path, monkeypatch, text, says):
    name = f"broken_{len(text)}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"method {name}:own.*{says}"):
        make_method(f"{name}:own")


# Counts


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["evaluate", "random", "--episodes", 10**12], ["--episodes", "at most 1000000", 10**12]),
        (["evaluate", "random", "--stations", 10**9], ["--stations", "at most 100000", 10**9]),
        (["evaluate", "random", "--tasks", 10**9], ["--tasks", "at most 100000", 10**9]),
        (["evaluate", "random", "--slots", 10**12], ["--slots", "at most 10000000", 10**12]),
        (["evaluate", "random", "--slots", 10**7, "--tasks", 10**4], ["tasks of an evaluation", "10000000 slots"]),
        (["evaluate", "random", "--stations", 10**4, "--tasks", 10**4], ["evaluation", "10000 stations"]),
        (["train", "sac-ts", "--environments", 10**9], ["--environments", "at most 100000", 10**9]),
        (["train", "sac-ts", "--environments", 10**5], ["100000 environments", "20 stations", "50 tasks"]),
        (["train", "sac-ts", "--eval-episodes", 10**12], ["--eval-episodes", 10**12]),
        (["compare", "--seeds", 10**9], ["--seeds", 10**9]),
        (["compare", "--processes", 10**9], ["--processes", 10**9]),
        (["compare", "--sweep", "stations=1,1000000000"], ["stations", 10**9]),
        (["calibrate", "tiny-cpu", "--slots", 10**12, "--out", "x.json"], ["--slots", 10**12]),
    ],
    ids=lambda x: " ".join(map(str, x)) if isinstance(x, list) else "",
)
def test_counts_beyond_any_use_are_refused_before_anything_is_made(refused, tmp_path, monkeypatch, argv, says):
    monkeypatch.chdir(tmp_path)
    refused(*argv, says=says)


def changed(scenario, *path_and_value):
    """The scenario's object with another value at a path of keys."""
    data = scenario.to_dict()
    at = data
    *path, value = path_and_value
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return data


@pytest.mark.parametrize(
    "change",
    [
        ("slots", 10**10),
        ("slots", 10**12),
        ("slots", True),
        ("slots", "30"),
        ("slot_s", "1"),
        ("slot_s", float("nan")),
        ("workload", "tasks_per_station_and_slot", [0, 10**9]),
        ("workload", "by_index", "steps", [2**64, 1, 1, 1]),
        ("servers", 0, "availability", {"mtbf_s": 1e-9, "mttr_s": 1e-9}),
        ("servers", 0, "availability", {"mtbf_s": 1e-320, "mttr_s": 1e-320}),
        ("stations", [0] * 100_001),
    ],
    ids=str,
)
def test_counts_of_a_scenario_are_bounded(scenario, change):
    data = changed(scenario, *change)
    with pytest.raises(InputError, match=str(change[-2] if isinstance(change[-2], str) else change[-3])):
        Scenario.from_dict(data)


def test_outages_without_end_are_refused_where_no_horizon_tells():
    outages = Timeline(Availability(mtbf_s=1e-9, mttr_s=1e-9), 0, Stream.EVALUATION, 0, 0)
    with pytest.raises(InputError, match=r"100,000 outages.*mtbf_s 1e-09"):
        outages.back_s(1.0)


@pytest.mark.parametrize("images", [2**64, 10**7, 0, 1.5, "3", True, float("inf")])
def test_counts_of_a_request_are_bounded(images):
    kind = {"width": 512, "height": 512, "steps": 20, "gcycles_per_step": 1.0, "input_mbit": 1.0, "result_mbit": 1.0}
    with pytest.raises(InputError, match="images"):
        RequestType.from_dict({**kind, "images": images}, "mix[0]")


@pytest.mark.parametrize(
    ("law", "rate", "says"),
    [
        (OnOff(1e-9, 1e-9), 1.0, "on_s"),
        (Daily(period_s=1e12, hourly_weights=(1.0, *[0.0] * 23)), 1e12, "period_s"),
        (Poisson(), 5e-324, "rate_per_s must be at least 1e-12"),
    ],
    ids=str,
)
def test_arrivals_that_never_come_are_refused(law, rate, says, monkeypatch):
    monkeypatch.setattr(laws, "_PHASES", 100)
    with np.errstate(all="ignore"), pytest.raises(InputError, match=says):
        arrival_times(law, rate, 50, np.random.default_rng(0), 5e11 if says == "period_s" else 0.0)


@pytest.mark.parametrize("cv", [1e-200, 1e200, 0, float("nan"), None, "2"])
def test_a_gamma_law_takes_a_spread_that_numbers_can_have(cv):
    with pytest.raises(InputError, match="cv"):
        Gamma(cv)


def test_chances_are_the_shares_of_counts():
    workload = Scenario.load("lad-ts").workload
    lo, hi = workload.tasks_per_station_and_slot
    assert (workload.chances() == [np.mean(np.arange(lo, hi + 1) > n) for n in range(hi)]).all()


# Deep and growing files

NESTED = 20_000
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 14))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * NESTED, "nested too deeply|not YAML"),
        ("[" * NESTED + "]" * NESTED, "nested too deeply"),
        ("{a: " * 500 + "1" + "}" * 500, "nested too deeply"),
        (LAUGHS, "10,000 values"),
        ("a: &a [*a]\n", "alias"),
        ("a: 1\na: 2\n", "'a' twice"),
        ("a: !!int x\n", "not YAML"),
        ("a: 2001-99-99\n", "not YAML"),
        ("a: !!bool x\n", "not YAML"),
        ("a: " + "1" * 5000 + "\n", "not YAML"),
        ("x" * 300_000, "longer"),
        ("a: \ud800", "not YAML"),
        ("a: \0", "not YAML"),
        ("!!python/object/apply:os.system [exit]\n", "not YAML"),
    ],
    ids=lambda text: text[:20],
)
def test_files_that_are_deep_grow_or_say_a_thing_twice_are_refused(text, says):
    with pytest.raises(InputError, match=f"mine.*({says})"):
        _yaml.parse(text, "mine")
    with pytest.raises(InputError, match=r"mine\.yaml"):
        parse_method(text, "mine.yaml")


def test_a_tower_of_lists_is_left_where_it_is_too_high(monkeypatch):
    """Its scanner would take a time that grows with the square of the height."""
    begun, compose = [], yaml.composer.Composer.compose_node
    monkeypatch.setattr(yaml.composer.Composer, "compose_node", lambda *words: begun.append(1) or compose(*words))
    with pytest.raises(InputError, match="mine is nested too deeply: at most 64 levels"):
        _yaml.parse("[" * NESTED, "mine")
    assert len(begun) == 65
    assert _yaml.parse("[" * 64 + "]" * 64, "mine")


@pytest.mark.parametrize("depth", [100, 900, NESTED])
def test_json_that_is_deep_is_refused_in_one_sentence(refused, tmp_path, depth):
    inner = '{"schema": "diffpolicy.scenario/1", "slot_s": 1, "servers": ' + "[" * depth + "]" * depth + "}"
    (tmp_path / "deep.json").write_text(inner)
    refused("evaluate", "opt-ts", "--scenario", tmp_path / "deep.json", says=["deep.json", "nested"])


# Methods

SAC = {"transitions": task_transitions, "learning_rates": {"actor": 1e-4, "critic": 1e-3, "alpha": 3e-4}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 10**9),
        ("hidden", [0.5]),
        ("hidden", [2**64]),
        ("hidden", "20"),
        ("hidden", None),
        ("hidden", [20] * 1000),
        ("time", 10**8),
        ("capacity", 10**12),
        ("capacity", True),
        ("capacity", "1000"),
        ("updates", 10**9),
        ("batch_size", 10**9),
        ("rollout_steps", 10**12),
        ("rollout_steps", None),
        ("start_after", -1),
        ("gamma", "0.9"),
        ("gamma", float("nan")),
        ("gamma", None),
        ("tau", 0),
        ("alpha", float("inf")),
        ("target_entropy", float("nan")),
        ("target_entropy", "half"),
        ("entropy_share", 2),
        ("entropy_samples", 10**9),
        ("reward_scale", 0.0),
        ("normalize", 1),
        ("share_parameters", "no"),
        ("act", []),
        ("draw", ["sample"]),
        ("prior", None),
        ("prior", {1: 2}),
        ("schedule", None),
        ("sampler", {}),
        ("sampler_steps", 0),
        ("transitions", "task_transitions"),
        ("learning_rates", {"actor": None}),
        ("learning_rates", [1]),
        ("learning_rates", {"actor": float("inf")}),
    ],
    ids=str,
)
def test_every_field_of_a_method_is_checked_where_it_is_made(field, value):
    with pytest.raises(InputError, match=rf"^{field}"):
        DiffusionSACMethod(**{**SAC, field: value})


@pytest.mark.parametrize(("field", "value"), [("epsilon", None), ("epsilon", 2), ("target_interval", 0), ("double", 1)])
def test_every_field_of_dqn_is_checked(field, value):
    with pytest.raises(InputError, match=rf"^{field}"):
        DQNMethod(transitions=task_transitions, learning_rates={"critic": 1e-4}, **{field: value})


def test_networks_and_replays_too_large_for_a_machine_are_refused_before_they_are_made():
    env = OffloadingEnv(Scenario.load("lad-ts").override(stations=2, slots=2))
    for hidden in ([200_000, 2_500], [10**6, 10**6]):
        with pytest.raises(InputError, match=r"parameters of a layer.*at most 100,000,000"):
            DiffusionSACMethod(**SAC, hidden=hidden).build(env, episode_steps=2)


SIDE_EFFECT = "import pathlib\npathlib.Path('imported').touch()\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class_path: os.system\ninit_args: {command: touch called}\n", "os.system"),
        ("class_path: subprocess.Popen\ninit_args: {args: touch called}\n", "subprocess.Popen"),
        ("class_path: [1]\n", "import path"),
        ("class_path: null\n", "import path"),
        ("class_path: ..x\n", "import path"),
        ("class_path: SACMethod\ncolour: {class_path: evil.Thing}\n", "colour"),
        ("class_path: SACMethod\ninit_args: {colour: evil.Thing, transitions: evil.thing}\n", "colour"),
        ("class_path: collections.OrderedDict\ninit_args: {transitions: evil.thing}\n", "OrderedDict"),
        ("class_path: SACMethod\ninit_args: {transitions: {class_path: evil.Thing}}\n", "import path"),
        ("class_path: SACMethod\ninit_args: {transitions: subprocess.Popen}\n", "function"),
        ("class_path: SACMethod\ninit_args: 3\n", "init_args"),
        (
            "class_path: DiffusionSACMethod\ninit_args:\n  transitions: diffpolicy.edge.task_transitions\n"
            "  learning_rates: {actor: 1e-4}\n  prior: {class_path: evil.Thing}\n  gamma: 3\n",
            "gamma",
        ),
    ],
)
def test_a_method_file_imports_nothing_before_its_class_is_known(tmp_path, monkeypatch, text, says):
    (tmp_path / "evil.py").write_text(SIDE_EFFECT + "class Thing: pass\nthing = 3\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"mine\.yaml.*{says}"):
        parse_method(text, "mine.yaml")
    assert os.listdir(tmp_path) == ["evil.py"]


def test_the_floors_that_are_declared_are_those_that_are_tried():
    """`.ci/run` trains once with `constraints-floors.txt`, so each floor of `pyproject.toml` must stand in it."""
    root = Path(__file__).parents[1]
    block = (root / "pyproject.toml").read_text().split("\ndependencies = [")[1].split("\n]")[0]
    declared = dict(re.findall(r'"([\w-]+)(?:\[\w+\])?>=([\d.]+)', block))
    tried = dict(re.findall(r"^([\w-]+)==([\d.]+)", (root / "constraints-floors.txt").read_text(), re.MULTILINE))
    assert {name.lower() for name in declared} - {"torch"} == {name.lower() for name in tried}
    for name, version in tried.items():
        floor = declared[name if name in declared else name.lower()]
        assert version == floor or version.removesuffix(".0") == floor or version.removesuffix(".0.0") == floor


def test_looking_for_keys_that_stand_twice_takes_as_long_as_reading():
    text = "".join(f"{n}:\n" for n in range(20_000))
    started = time.process_time()
    yaml.SafeLoader(text).get_single_node()
    reading = time.process_time() - started
    started = time.process_time()
    with pytest.raises(InputError, match="more than 10,000 values"):
        _yaml.parse(text, "mine")
    assert time.process_time() - started < 5 * reading


@pytest.mark.parametrize("waits", [{"write_through": True}, {"line_buffering": True}], ids=["unbuffered", "by lines"])
def test_streams_wait_no_longer_than_python_was_told(waits):
    below = io.BytesIO()
    stream = streams._stream(streams.Progress, io.TextIOWrapper(below, encoding="utf-8", **waits), 2)
    stream.write("told\n")
    assert below.getvalue() == b"told\n"


def test_a_command_finds_what_a_users_function_imports_when_it_is_called(tmp_path, monkeypatch, capsys):
    (tmp_path / "late_part.py").write_text("from diffpolicy.edge.resolve import make_policy\n")
    (tmp_path / "late_rule.py").write_text(
        "def make(scenario):\n    import late_part\n    return late_part.make_policy('opt-ts', scenario)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    before = list(sys.path)
    assert main(["evaluate", "late_rule:make", *TINY, "--episodes", "1"]) == 0, capsys.readouterr().err
    assert sys.path == before


def test_a_file_in_the_working_folder_hides_no_module_that_others_import(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with working_folder(last=True):
        assert sys.path[0] != str(tmp_path)
        with working_folder():
            assert sys.path[0] == str(tmp_path)
        assert sys.path[0] != str(tmp_path)


# Names that no file can have, and places in which no file may be put


def odd_places(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    return ["x" * 300, str(tmp_path / "pipe"), str(tmp_path / "loop"), str(tmp_path)]


@pytest.mark.skipif(sys.platform == "win32", reason="it has neither pipes nor links there")
def test_what_stands_at_a_place_is_told_whatever_its_name(tmp_path):
    (tmp_path / "file").touch()
    places = [*odd_places(tmp_path), str(tmp_path / "file"), "a\0b", str(tmp_path / "none"), "/dev/null"]
    assert [what_is(place) for place in places] == ["", "device", "", "folder", "file", "", "", "device"]


@pytest.mark.skipif(sys.platform == "win32", reason="it has neither pipes nor links there")
def test_no_file_is_put_in_the_place_of_a_pipe_or_device(tmp_path):
    long, pipe, _, folder = odd_places(tmp_path)
    for place, why in ((long, "too long"), (pipe, "device or a pipe"), (folder, "folder")):
        for write in (_files.check_writable, lambda place: _files.write_text(place, "x")):
            with pytest.raises(InputError, match=f"cannot write .*{why}"):
                write(place)
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


@pytest.mark.skipif(sys.platform == "win32", reason="it has neither pipes nor links there")
@pytest.mark.parametrize(
    "read",
    [
        Scenario.load,
        ServerProfile.load,
        Policy.load,
        make_method,
        lambda place: check_policy(place, rules=(), bundled=()),
        read_decisions,
        read_data,
        checkpoint.read,
    ],
)
def test_names_that_no_file_can_have_are_refused_by_every_reader(read, tmp_path):
    for place in [*odd_places(tmp_path), "a\0b", "\ud800"]:
        with pytest.raises(InputError) as error:
            read(place)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_with_a_null_character_or_half_a_pair_is_refused_by_the_reader_itself(name):
    with pytest.raises(InputError, match="no file can have this name"):
        read_bytes(name, "file")
