"""The command line's own habits: one meaning for an option, names that are meant, help, completion, progress, JSON."""

import argparse
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from diffpolicy import __version__
from diffpolicy._text_table import WIDTH, render
from diffpolicy.cli import completion, profile
from diffpolicy.cli.main import COMMANDS, GROUPS, command_name, parser
from diffpolicy.cli.progress import bar
from toys import small

TINY = ["--stations", 2, "--slots", 2, "--tasks", 3]
ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Default outputs lie in the test's own folder."""
    monkeypatch.chdir(tmp_path)


def commands():
    """Each command's own parser."""
    return next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices


# Names that are meant


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["trian", "lad-ts"], "train"),
        (["evaluate", "opt-ts", "--eval-episode", "3"], "--eval-episodes"),
        (["list", "method"], "methods"),
        (["evaluate", "otp-ts"], "opt-ts"),
        (["evaluate", "pretrained:life"], "pretrained:live"),
        (["evaluate", "opt-ts", "--scenario", "ladts"], "lad-ts"),
        (["evaluate", "opt-ts", "--problem", "ofloading"], "offloading"),
        (["train", "d2sacc"], "d2sac"),
        (["compare", "--methods", "sac,dqnn"], "dqn"),
        (["compare", "--sweep", "station=1,2"], "stations"),
        (["train", "sac-ts", "--set", "gama=0.9", *TINY], "gamma"),
        (["train", "sac", "--problem", "offloading", "--logger", "tensorbord"], "tensorboard"),
    ],
)
def test_a_name_that_is_nearly_right_is_asked_back(refused, argv, meant):
    message = refused(*argv)
    assert f"did you mean {meant}?" in message


def test_what_is_near_nothing_is_asked_back_for_nothing(refused):
    assert "did you mean" not in refused("evaluate", "zzzzzz")


def test_an_option_of_a_config_file_is_asked_back_too(refused, tmp_path):
    (tmp_path / "c.yaml").write_text("episods: 3\n")
    assert "did you mean --episodes?" in refused("train", "sac-ts", "--config", "c.yaml", says=["c.yaml", "episods"])


# One meaning for one option


def test_an_option_means_the_same_in_every_command():
    of_training, kinds = {"train", "compare"}, {}
    for name, command in commands().items():
        for action in command._actions:
            for option in action.option_strings:
                if action.help != argparse.SUPPRESS:
                    kinds.setdefault(option, {})[name] = action
    assert set(kinds["--episodes"]) == of_training
    assert set(kinds["--eval-episodes"]) == {"train", "compare", "evaluate"}
    for option in ("--tasks", "--steps"):
        assert set(kinds[option]) == {"train", "compare", "evaluate"}
        assert len({(a.metavar, a.help) for a in kinds[option].values()}) == 1
    assert all("continue the same run in --out, if it was stopped" in a.help for a in kinds["--resume"].values())


def test_old_spellings_are_read_and_one_line_says_what_is_typed_now(cli, scenario_file, write_tasks, tmp_path):
    words = ["evaluate", "local", "--scenario", scenario_file, "--json"]
    old, new = cli(*words, "--episodes", 2), cli(*words, "--eval-episodes", 2)
    assert old.status == new.status == 0
    assert old.err == "diffpolicy: --episodes is now spelled --eval-episodes; the old spelling will be removed\n"
    assert new.err == ""
    tasks = write_tasks("0,0,3.5,1,0.25,4,2")
    words = ["replay", "--scenario", scenario_file, "--json"]
    old, new = cli(*words, "--tasks", tasks), cli(*words, "--task-file", tasks)
    assert old.out == new.out
    assert "--task-file" in old.err
    words = ["tasks", "azure-sample", "--out", tmp_path / "azure.csv", "--json"]
    old, new = cli(*words, "--steps", 4), cli(*words, "--request-steps", 4)
    assert old.out == new.out
    assert "--request-steps" in old.err


def test_an_old_spelling_in_a_config_file_is_read_too(refused, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "c.yaml").write_text("tensorboard: true\n")
    refused("train", "sac-ts", "--config", "c.yaml", says=["logger tensorboard", ".[tensorboard]"])


def test_the_grid_of_a_profile_takes_the_old_options():
    old = parser().parse_args(["profile", "--sizes", "64,96x128", "--steps", "4"])
    new = parser().parse_args(["profile", "--grid", "sizes=64,96x128;steps=4"])
    assert profile._grid_texts(old) == profile._grid_texts(new)
    assert "--grid 'sizes=...'" in old.old[0]
    assert profile._command(parser().parse_args(["profile", "--repeats", "2"])) == "diffpolicy profile --repeats 2"


def test_resume_without_a_place_goes_on_in_out(cli, tmp_path):
    words = ["train", "sac-ts", *TINY, "--out", tmp_path / "run", "--json"]
    assert json.loads(cli(*words, "--episodes", 1).out)["episodes"] == 1
    result = cli(*words, "--episodes", 2, "--resume")
    assert json.loads(result.out)["episodes"] == 2, result.err
    assert len((tmp_path / "run" / "training.csv").read_text().splitlines()) == 3


# Fields of methods


def test_set_changes_fields_of_the_method(cli, tmp_path):
    words = ["--set", "hidden=[7]", "--set", "learning_rates.actor=0.5", "--set", "gamma=0.5"]
    assert cli("train", "sac-ts", *TINY, "--episodes", 1, *words, "--out", tmp_path / "run").status == 0
    assert json.loads((tmp_path / "run" / "policy.json").read_text())["config"]["hidden"] == [7]


@pytest.mark.parametrize("command", [["train", "sac-ts"], ["compare", "--methods", "sac-ts", "--episodes", 1]])
@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("colour=1", ["'colour'", "gamma", "hidden"]),
        ("gamma=2", ["gamma", "2"]),
        ("gamma", ["KEY=VALUE", "gamma"]),
        ("gamma.x=1", ["gamma", "not an object"]),
        ("learning_rates.actor=fast", ["learning_rates.actor", "fast"]),
    ],
)
def test_a_field_that_is_not_or_takes_no_such_value_is_refused(refused, command, field, says):
    refused(*command, *TINY, "--set", field, says=says)


def test_a_field_that_some_of_the_compared_methods_lack_is_set_in_one_of_them(refused):
    words = ["compare", "--methods", "lad-ts,sac-ts", *TINY, "--episodes", 1]
    refused(*words, "--set", "steps=3", says=["sac-ts has no field 'steps'", "lad-ts.steps"])
    refused(*words, "--set", "sac-ts.steps=3", says=["no field 'steps'", "gamma"])
    swept = [*words[:2], "lad-ts", *words[3:], "--sweep", "denoising-steps=1,2", "--set", "lad-ts.steps=3"]
    refused(*swept, says=["lad-ts.steps", "denoising-steps"])


def test_compare_trains_with_the_fields_that_are_set(cli, tmp_path, monkeypatch, no_pictures):
    monkeypatch.setattr("diffpolicy.experiments.workers.portable", lambda problem: False)  # in this process
    words = ["--methods", "dqn-ts,sac-ts", *TINY, "--episodes", 1, "--eval-episodes", 1, "--processes", 1]
    words += ["--policies", "random", "--set", "dqn-ts.hidden=[4]", "--set", "hidden=[5]", "--set", "start_after=3"]
    result = cli("compare", *words, "--out", tmp_path / "out", "-q", "--json")
    assert result.status == 0, result.err
    assert result.err == ""
    for name, hidden in (("dqn-ts", [4]), ("sac-ts", [5])):
        file = tmp_path / "out" / "policies" / name / "seed-0" / "policy.json"
        assert json.loads(file.read_text())["config"]["hidden"] == hidden, name
    data = json.loads(result.out)
    assert (list(data)[-2:], data["version"], data["seed"]) == (["version", "seed"], __version__, 0)


# Help and completion


def test_help_groups_the_commands_and_each_has_examples_that_parse(cli):
    told = cli("--help").out
    for title, modules in GROUPS.items():
        assert f"{title}:\n  {command_name(modules[0])}" in told
    for modules in GROUPS.values():
        for module in modules:
            assert module.EXAMPLES
            for example in module.EXAMPLES:
                assert example in cli(command_name(module), "--help").out
                words = re.sub(r"\s+#.*", "", example).removeprefix("diffpolicy ")
                if example.startswith("diffpolicy ") and ">" not in example:
                    parser().parse_args([word.strip("\"'") for word in re.findall(r"\"[^\"]*\"|'[^']*'|\S+", words)])


def test_help_tells_the_names_that_may_stand_there(cli):
    told = cli("evaluate", "--help").out
    for line in ("POLICY: opt-ts, ", "PROBLEM: offloading", "SCENARIO: lad-ts, "):
        assert line in told
    assert "pretrained:live" in told
    assert all(len(line) <= 110 for line in told.splitlines())


def test_old_spellings_are_not_shown(cli):
    assert "--episodes" not in cli("evaluate", "--help").out.replace("--eval-episodes", "")
    assert "--tensorboard" not in cli("train", "--help").out


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("diffpolicy tr", {"train", "train-fleet"}),
        ("diffpolicy evaluate opt-ts --eval-e", {"--eval-episodes"}),
        ("diffpolicy train lad-ts-p", {"lad-ts-plus"}),
        ("diffpolicy compare --methods sac,dqn-", {"sac,dqn-ts", "sac,dqn-plus"}),
        ("diffpolicy evaluate pretrained:li", {"live", "live-gated", "live-one-pass"}),
        ("diffpolicy list ", {"problems", "methods", "policies", "scenarios", "profiles"}),
    ],
)
def test_bash_completes(line, found):
    script = completion.bash(completion.words_of(parser()))
    typed = f'COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=({line})'
    run = f'{script}\n{typed}; _diffpolicy; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == found
    assert done.stderr == ""


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_shell_is_told_every_command_and_option(cli, shell):
    script = cli("completion", shell).out
    for name, command in commands().items():
        assert name in script
        for spelling in command.spellings():
            long = spelling.startswith("--")
            fish = f"-l {spelling[2:]}" if long else f"-s {spelling[1:]}"
            assert (fish if shell == "fish" else spelling) in script


# Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def looked_at(monkeypatch, terminal, **options):
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    given = argparse.Namespace(**{"quiet": False, "json": False, "verbose": False, **options})
    with bar(given, "playing", 4.0) as progress:
        progress.advance(1.0, "opt-ts")
        progress.advance(3.0, "random")
        progress.tell("a line")
    return stream.getvalue()


def test_a_terminal_sees_a_bar_and_nobody_else_does(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert "100%" in looked_at(monkeypatch, True)
    assert looked_at(monkeypatch, False) == ""
    assert looked_at(monkeypatch, True, quiet=True) == ""
    assert looked_at(monkeypatch, True, json=True) == ""
    assert looked_at(monkeypatch, False, verbose=True) == "playing opt-ts\nplaying random\na line\n"


def test_an_evaluation_tells_of_all_its_episodes():
    from diffpolicy.edge.problem import OffloadingProblem
    from diffpolicy.experiments import evaluate

    heard = {}
    evaluate(
        OffloadingProblem(small(2, 3, 4)),
        ["random", "opt-ts"],
        episodes=18,
        heard=lambda name, count: heard.update({name: heard.get(name, 0) + count}),
    )
    assert heard == {"random": pytest.approx(18), "opt-ts": pytest.approx(18)}


def test_verbose_tells_where_a_mistake_arose(cli):
    result = cli("evaluate", "zzzzzz", "-v")
    assert result.status == 2
    assert "Traceback" in result.err
    assert cli("evaluate", "opt-ts", "-q", "-v").status == 2


# Tables


def test_a_table_fits_a_hundred_columns_and_keeps_names_whole():
    figures = ["12.345 ± 0.123", "123.45", "123.45", "123.45", "999.99", "1.000 ± 0.000", "169,316"]
    name = "runs/" + "a-folder-of-mine/" * 5
    columns = ["policy", "mean s", "p50", "p95", "p99", "max", "ratio", "decisions/s"]
    table = render("title " * 40, columns, [[name, *figures], ["opt-ts", *figures]])
    lines = table.splitlines()
    assert all(len(line) <= WIDTH for line in lines)
    assert lines.index(f"  {name}") + 1 == next(i for i, line in enumerate(lines) if "169,316" in line)
    assert lines[-1].split()[0] == "opt-ts"


# The reference


def test_the_reference_shows_every_option_and_example_of_every_command(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    from command_line import cell, options, reference, typed

    page = (DOCS / "cli.md").read_text()
    for name, command in commands().items():
        assert page.count(f"```{{command}} {name}\n```") == 1
        text = reference(name)
        assert all(example in text for example in next(m for m in COMMANDS if command_name(m) == name).EXAMPLES)
        shown = [spelling for spelling in command.spellings() if spelling not in ("-h", "--help")]
        shared = reference("shared")
        assert all(spelling in text or spelling in shared for spelling in shown)
        assert f"](#{name})" in reference("all")
        assert f"\n({name})=\n" in page
    assert cell("a|b in --out") == r"a\|b in `--out`"
    train = commands()["train"]
    assert ("--resume [DIR|CKPT]", train._option_string_actions["--resume"].help) in options(train, "options")
    assert typed(train._option_string_actions["--logger"]) == "--logger csv|tensorboard|wandb"


def test_no_page_names_an_option_that_no_command_has():
    actions = [action for command in commands().values() for action in command._actions]
    known = {spelling for action in actions for spelling in action.option_strings}
    for path in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for line in re.findall(r"^\$? ?diffpolicy .*", path.read_text(), flags=re.M):
            words = re.findall(r"(?<![\w-])--[a-z][\w-]*", line.partition("#")[0])
            assert set(words) <= known | {"--version"}, f"{path}: {line}"
