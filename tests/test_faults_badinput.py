"""What a command meets around it, and input that no one can mean: one sentence, nothing lost, nothing left changed."""

import csv
import json
import os
import subprocess
import sys

import pytest

import diffpolicy
from diffpolicy import InputError
from diffpolicy.edge.resolve import import_attribute, make_method
from diffpolicy.edge.tables import render

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


@pytest.mark.parametrize(
    "argv", [EVALUATE, ["train", "sac-ts", *TINY, "--episodes", "1", "--out", "run"]], ids=lambda x: x[0]
)
def test_commands_that_draw_nothing_import_no_matplotlib(tmp_path, argv):
    script = (
        "import sys\nfrom diffpolicy.cli.main import main\n"
        f"assert main({argv!r}) == 0\n"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'matplotlib']\n"
        "assert ('lightning' in sys.modules) == ('train' in sys.argv[1])\n"
    )
    command = [sys.executable, "-c", script, argv[0]]
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
        "from diffpolicy.edge import plots\n"
        "assert matplotlib.get_backend().lower() == 'svg'\n"
        "import sys\nassert 'matplotlib.pyplot' not in sys.modules\n"
        "figure = plots._figure(2, 2)\naxes = figure.subplots()\n"
        "for name in ('_hidden', 'a $b$ _{', '[red]', '\\ud800'):\n"
        "    axes.plot([1], label=plots._plain(name))\n"
        "plots._finish(figure, axes, sys.argv[1])\n"
        "assert len(axes.get_legend().get_texts()) == 4\n"
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
