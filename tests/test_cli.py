"""What the commands print and write. What they refuse is in `test_cli_refusals.py`."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from diffpolicy import __version__
from diffpolicy.edge import Scenario, evaluate

COMMANDS = ["compare", "train", "evaluate", "replay"]
DELAYS = ["mean_delay_s", "p50_delay_s", "p95_delay_s", "p99_delay_s", "max_delay_s"]
RESULT = {*DELAYS, "ci95_s", "tasks", "ratio", "ratio_ci95"}
MADE = ["version", "seed"]
TINY = ["--stations", 2, "--slots", 2, "--tasks", 3]


def stated(run):
    """The one JSON object on stdout."""
    assert run.status == 0, run.err
    assert len(run.out.splitlines()) == 1
    return json.loads(run.out)


# Help


def test_help_lists_every_command(cli):
    result = cli("--help")
    assert result.status == 0
    assert all(name in result.out for name in COMMANDS)


def test_without_a_command_the_help_is_shown(cli):
    result = cli()
    assert (result.status, result.out, result.err) == (0, cli("--help").out, "")


def test_list_tells_what_there_is_a_line_each(cli):
    found = json.loads(cli("list", "--json").out)
    assert list(found) == ["problems", "methods", "policies", "scenarios", "profiles", *MADE]
    assert "offloading" in found["problems"]
    assert {"d2sac", "lad-ts"} <= set(found["methods"])
    assert {"opt-ts", "pretrained:live"} <= set(found["policies"])
    assert cli("list", "profiles").out.splitlines() == found["profiles"]
    assert len(cli("list").out.splitlines()) == sum(len(found[kind]) for kind in found if kind not in MADE)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(cli, name):
    result = cli(name, "--help")
    assert result.status == 0
    assert result.err == ""
    for option in ("--seed", "--threads", "--json", "--scenario", "--out" if name != "evaluate" else "--baseline"):
        assert option in result.out


def test_the_version_is_printed(cli):
    assert cli("--version").out == f"diffpolicy {__version__}\n"


def test_the_module_runs_as_the_command_does():
    done = subprocess.run([sys.executable, "-m", "diffpolicy", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"diffpolicy {__version__}\n", "")


# evaluate


def test_evaluate_prints_the_schema_of_the_design(cli, scenario_file):
    data = stated(cli("evaluate", "opt-ts", "random", "--scenario", scenario_file, "--episodes", 3, "--json"))
    assert list(data) == ["scenario", "load", "policies", *MADE]
    assert (data["version"], data["seed"]) == (__version__, 0)
    assert data["scenario"] == str(scenario_file)
    assert list(data["policies"]) == ["opt-ts", "random"]
    for result in data["policies"].values():
        assert set(result) - {"decisions_per_second"} == RESULT
        assert all(isinstance(result[name], float) for name in [*DELAYS, "ci95_s", "ratio"])
        assert isinstance(result["tasks"], int)
        assert len(result["ratio_ci95"]) == 2
        assert result["ratio_ci95"][0] <= result["ratio"] <= result["ratio_ci95"][1]
        assert result["p50_delay_s"] <= result["p95_delay_s"] <= result["p99_delay_s"] <= result["max_delay_s"]
    assert data["policies"]["opt-ts"]["ratio"] == 1.0
    assert data["policies"]["opt-ts"]["ratio_ci95"] == [1.0, 1.0]


def test_evaluate_prints_what_the_function_returns(cli, scenario_file, scenario):
    argv = ["evaluate", "opt-ts", "random", "--scenario", scenario_file, "--episodes", 3, "--seed", 4]
    data = stated(cli(*argv, "--baseline", "local", "--json"))
    again = evaluate(["opt-ts", "random"], scenario, episodes=3, seed=4, baseline="local")
    assert data["load"] == again.load
    for name, result in again.results.items():
        expected = result.to_dict() | {"decisions_per_second": None}
        assert data["policies"][name] | {"decisions_per_second": None} == expected


def test_one_episode_has_null_intervals(cli, scenario_file):
    data = stated(cli("evaluate", "local", "--scenario", scenario_file, "--episodes", 1, "--json"))
    assert data["policies"]["local"]["ci95_s"] is None
    assert data["policies"]["local"]["ratio_ci95"] is None


def test_policies_are_called_as_they_were_typed(cli, scenario_file, policy_folder):
    typed = [f"{policy_folder}/", str(policy_folder / "policy.json"), str(policy_folder / "policy.safetensors")]
    data = stated(cli("evaluate", *typed, "--scenario", scenario_file, "--episodes", 2, "--json"))
    assert list(data["policies"]) == typed
    results = [{**r, "decisions_per_second": 0} for r in data["policies"].values()]
    assert results[0] == results[1] == results[2]


def test_a_policy_folder_may_be_the_baseline(cli, scenario_file, policy_folder):
    argv = ["evaluate", policy_folder, "--scenario", scenario_file, "--episodes", 2, "--baseline", policy_folder]
    assert stated(cli(*argv, "--json"))["policies"][str(policy_folder)]["ratio"] == 1.0


def test_a_policy_of_ones_own_is_found_in_the_working_folder(cli, scenario_file, tmp_path, monkeypatch):
    (tmp_path / "my_rules.py").write_text(
        "from diffpolicy.edge.rules.stateless import Local\n\n\n"
        "def make(scenario):\n    return Local(len(scenario.stations), len(scenario.servers))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    argv = ["evaluate", "my_rules:make", "local", "--scenario", scenario_file, "--episodes", 2, "--json"]
    mine, theirs = stated(cli(*argv))["policies"].values()
    assert mine | {"decisions_per_second": 0} == theirs | {"decisions_per_second": 0}


def test_overrides_change_the_scenario(cli):
    argv = ["evaluate", "random", *TINY, "--episodes", 2, "--capacity", "10:12", "--steps", "2:4", "--json"]
    scenario = Scenario.load("lad-ts").override(stations=2, slots=2, tasks=3, capacity=(10, 12), steps=(2, 4))
    expected = evaluate(["random"], scenario, episodes=2)
    data = stated(cli(*argv))
    assert data["load"] == expected.load
    assert data["policies"]["random"]["mean_delay_s"] == expected.results["random"].delays.mean_delay_s


def test_the_same_seed_gives_the_same_figures(cli, scenario_file):
    def figures(seed):
        argv = ["evaluate", "random", "power-of-two", "--scenario", scenario_file, "--episodes", 2, "--seed", seed]
        return [r["mean_delay_s"] for r in stated(cli(*argv, "--json"))["policies"].values()]

    assert figures(3) == figures(3)
    assert figures(3) != figures(4)


def test_a_sampler_may_be_given(cli, scenario_file, policy_folder):
    argv = ["evaluate", policy_folder, "local", "--scenario", scenario_file, "--episodes", 2, "--json"]
    plain = stated(cli(*argv))["policies"]
    other = stated(cli(*argv, "--sampler", "ddim", "--sampler-steps", 1))["policies"]
    assert plain["local"]["mean_delay_s"] == other["local"]["mean_delay_s"]
    assert plain[str(policy_folder)]["mean_delay_s"] != other[str(policy_folder)]["mean_delay_s"]


def test_without_json_a_table_is_printed(cli, scenario_file):
    result = cli("evaluate", "opt-ts", "random", "--scenario", scenario_file, "--episodes", 2)
    assert result.status == 0
    table = result.out.splitlines()
    assert any("opt-ts" in line and "1.000" in line for line in table)
    assert any("random" in line for line in table)


# replay


ROWS = ["0,0,3.5,1,0.25,4,2", "0,,3,0.5,0.5,2,1", "4,2,2,0.25,0.5,1,0"]


def test_replay_prints_the_schema_of_the_design(cli, scenario_file, write_tasks):
    data = stated(cli("replay", "--scenario", scenario_file, "--task-file", write_tasks(*ROWS), "--json"))
    assert list(data) == ["scenario", "load", "policy", "tasks", *DELAYS, *MADE]
    assert (data["scenario"], data["policy"], data["tasks"]) == (str(scenario_file), "recorded", 3)
    delays = [3.5 / 45 + 1 / 6 + 1 / 45, 3 / 40 + 1 / 9 + 0.5 / 40, 2 / 50 + 0.5 / 4 + 0.25 / 50]
    assert data["mean_delay_s"] == pytest.approx(np.mean(delays))
    assert data["max_delay_s"] == pytest.approx(max(delays))
    assert [data[n] for n in DELAYS[1:4]] == pytest.approx(list(np.percentile(delays, [50, 95, 99])))
    assert data["load"] == pytest.approx(2.5 / (19 * 0.5 * 5))


def test_replay_names_the_policy_as_typed(cli, scenario_file, write_tasks, policy_folder):
    argv = ["replay", "--scenario", scenario_file, "--task-file", write_tasks(*ROWS), "--json", "--policy"]
    assert stated(cli(*argv, "opt-ts"))["policy"] == "opt-ts"
    assert stated(cli(*argv, policy_folder))["policy"] == str(policy_folder)


def test_replay_under_a_policy_ignores_the_recorded_servers(cli, scenario_file, write_tasks):
    tasks = write_tasks(*(row[:-1] + "nonsense" for row in ROWS))
    argv = ["replay", "--scenario", scenario_file, "--task-file", tasks, "--policy", "slot-greedy", "--json"]
    assert stated(cli(*argv))["tasks"] == 3


def test_replay_writes_rows_and_columns_with_decisions_and_delays(cli, scenario_file, write_tasks, tmp_path):
    columns = "slot,origin,input_mbit,result_mbit,gcycles_per_step,steps,server,note"
    tasks = write_tasks(*(f'{row},"a, {i}"' for i, row in enumerate(ROWS)), columns=columns)
    out = tmp_path / "out.csv"
    argv = ["replay", "--scenario", scenario_file, "--task-file", tasks, "--out", out, "--json"]
    data = stated(cli(*argv, "--policy", "opt-ts"))
    before, after = (list(csv.DictReader(p.open(newline=""))) for p in (tasks, out))
    assert list(after[0]) == [*columns.split(","), "delay_s"]
    delays = [float(row["delay_s"]) for row in after]
    assert [row["delay_s"] for row in after] == [repr(x) for x in delays]
    assert np.mean(delays) == data["mean_delay_s"]
    for a, b in zip(before, after, strict=True):
        assert {k: a[k] for k in a if k != "server"} == {k: b[k] for k in b if k not in ("server", "delay_s")}
    again = stated(cli("replay", "--scenario", scenario_file, "--task-file", out, "--json"))
    assert again["policy"] == "recorded"
    assert {k: again[k] for k in DELAYS} == {k: data[k] for k in DELAYS}


def test_replay_may_write_over_its_own_input(cli, scenario_file, write_tasks):
    tasks = write_tasks(*ROWS)
    assert cli("replay", "--scenario", scenario_file, "--task-file", tasks, "--out", tasks).status == 0
    assert "delay_s" in tasks.read_text().splitlines()[0]
    assert [p.name for p in tasks.parent.glob(".*")] == []


def test_replay_needs_neither_slots_nor_a_workload(cli, tmp_path, write_tasks, scenario):
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps(Scenario(0.5, scenario.servers).to_dict()))
    for policy in ([], ["--policy", "random"]):
        assert cli("replay", "--scenario", bare, "--task-file", write_tasks(*ROWS), *policy).status == 0


# train


def test_train_writes_a_policy_that_evaluate_plays(cli, tmp_path):
    out = tmp_path / "run"
    argv = ["train", "lad-ts", *TINY, "--episodes", 2, "--out", out, "--json"]
    data = stated(cli(*argv))
    assert data["method"] == "lad-ts"
    assert data["episodes"] == 2
    assert {p.name for p in out.iterdir()} >= {"policy.json", "policy.safetensors", "checkpoint.ckpt", "training.csv"}
    assert len((out / "training.csv").read_text().splitlines()) == 3
    played = stated(cli("evaluate", out, *TINY, "--episodes", 2, "--json"))
    assert played["policies"][str(out)]["tasks"] > 0


def test_training_goes_on_from_a_checkpoint_to_the_total(cli, tmp_path):
    def run(out, episodes, *more):
        data = stated(cli("train", "sac-ts", *TINY, "--episodes", episodes, "--out", tmp_path / out, "--json", *more))
        assert data["episodes"] == episodes
        return (tmp_path / out / "policy.safetensors").read_bytes()

    whole = run("whole", 4)
    run("half", 2)
    assert run("rest", 4, "--resume", tmp_path / "half" / "checkpoint.ckpt") == whole


def test_a_config_file_gives_options_and_the_command_line_wins(cli, tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text(f"episodes: 3\nstations: 2\nslots: 2\ntasks: 3\nout: {tmp_path / 'run'}\njson: true\n")
    assert stated(cli("train", "sac-ts", "--config", config))["episodes"] == 3
    for k, words in enumerate((["--episodes", 1], ["--episodes=2"])):
        other = tmp_path / str(k)
        assert stated(cli("train", "sac-ts", "--config", config, *words, "--out", other))["episodes"] == k + 1


def test_a_config_file_takes_both_spellings_of_an_option(cli, tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text("evaluate_every: 1\neval-episodes: 1\ncapacity: 10:20\n")
    argv = ["train", "sac-ts", *TINY, "--episodes", 1, "--out", tmp_path / "run", "--json", "--config", config]
    assert cli(*argv).status == 0
    assert "eval" in (tmp_path / "run" / "training.csv").read_text().splitlines()[0]


# compare


@pytest.mark.slow
def test_compare_trains_plays_and_writes(cli, tmp_path):
    out = tmp_path / "compared"
    argv = ["compare", "--methods", "sac-ts,dqn-ts", *TINY, "--episodes", 2, "--eval-episodes", 2, "--out", out]
    data = stated(cli(*argv, "--json"))
    assert {"opt-ts", "sac-ts", "dqn-ts", "local"} <= set(data["methods"])
    assert data["methods"]["sac-ts"]["kind"] == "method"
    assert data["methods"]["opt-ts"]["ratio"] == 1.0
    rows = list(csv.DictReader((out / "comparison.csv").open(newline="")))
    assert {row["method"] for row in rows} == set(data["methods"])
    for row in rows:
        assert float(row["mean_delay_s"]) == data["methods"][row["method"]]["mean_delay_s"]
    assert (out / "learning_curves.png").stat().st_size > 1000
    assert (out / "delay_by_size.png").stat().st_size > 1000
    assert (out / "steps.png").stat().st_size > 1000
    with (out / "steps.csv").open(newline="") as file:
        shown = {row["policy"] for row in csv.DictReader(file)}
    assert {"sac-ts", "opt-ts", "capacity-proportional"} <= shown
    assert "random" not in shown
    assert not (out / "chain.csv").exists()


@pytest.mark.parametrize("argv", [["--help"], ["evaluate", "local", *TINY, "--episodes", 1]], ids=["help", "evaluate"])
def test_a_reader_that_has_gone_is_noticed_and_no_traceback(monkeypatch, argv):
    from diffpolicy.cli.main import main

    read, write = os.pipe()
    os.close(read)
    stdout = io.TextIOWrapper(os.fdopen(write, "wb"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as stop:
            sys.exit(main(list(map(str, argv))))
    try:
        stdout.close()
    except BrokenPipeError:
        pytest.fail("the interpreter would complain of the closed pipe when it ends")
    assert stop.value.code == 141
