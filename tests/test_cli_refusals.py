"""Bad input on the command line: status 2, one sentence on stderr that names what is wrong, and nothing written."""

import json
import subprocess
import sys

import pytest
import torch

from diffpolicy.edge import Scenario, Stream
from toys import quick_method

HEAD = "slot,origin,input_mbit,result_mbit,gcycles_per_step,steps,server"
GOOD = "0,0,3.5,1,0.25,4,2"
TINY = ["--stations", 2, "--slots", 2, "--tasks", 3]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Relative paths and default outputs lie in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def commands(scenario="SCENARIO", tasks="TASKS"):
    """Each command that reads a scenario, as words of a command line."""
    return [
        ["evaluate", "opt-ts", "--scenario", scenario],
        ["replay", "--scenario", scenario, "--tasks", tasks],
        ["train", "sac-ts", "--scenario", scenario],
        ["compare", "--scenario", scenario],
    ]


# The command line itself


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["list", "nonsense"], "nonsense"),
        (["nonsense"], "nonsense"),
        (["evaluate"], "POLICY"),
        (["train"], "METHOD"),
        (["replay", "--tasks", "x.csv"], "--scenario"),
        (["replay", "--scenario", "lad-ts"], "--task-file"),
        (["evaluate", "opt-ts", "--nonsense"], "--nonsense"),
        (["evaluate", "opt-ts", "--nonsense\nmore"], "--nonsense"),
        (["evaluate", "opt-ts", "--episodes"], "--episodes"),
        (["evaluate", "opt-ts", "--epis", "3"], "--epis"),
        (["evaluate", "opt-ts", "--sampler", "euler"], "euler"),
    ],
)
def test_words_that_mean_nothing_are_refused(refused, argv, says):
    refused(*argv, says=[says])


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", "nan", "", "1e3"])
@pytest.mark.parametrize("argv", [["evaluate", "opt-ts"], ["train", "sac-ts"], ["compare"]], ids=lambda x: x[0])
def test_episodes_are_whole_numbers_from_one(refused, argv, value):
    refused(*argv, f"--episodes={value}", says=["--episodes", value])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seed", "-1"),
        ("--seed", "x"),
        ("--seed", str(2**64)),
        ("--threads", "0"),
        ("--tasks", "0"),
        ("--stations", "-2"),
        ("--slots", "0"),
        ("--capacity", "20"),
        ("--capacity", "20:10"),
        ("--capacity", "1:2:3"),
        ("--capacity", "1:99999999999999999999"),
        ("--steps", "5:5"),
        ("--steps", "a:b"),
        ("--steps", "1:99999999999999999999"),
        ("--sampler-steps", "0"),
    ],
)
def test_options_out_of_range_are_refused(refused, option, value):
    refused("evaluate", "random", "--episodes", 1, f"{option}={value}", says=[option.strip("-"), value])


def test_a_range_from_zero_is_refused(refused):
    refused("evaluate", "random", "--capacity", "0:10", says=["capacity", "got 0"])


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x"])
def test_a_comparison_needs_time(refused, value):
    refused("compare", f"--minutes={value}", says=["--minutes", value])


# Scenarios


@pytest.mark.parametrize("argv", commands(), ids=lambda argv: argv[0])
def test_a_scenario_that_is_not_there_is_refused(refused, argv):
    for name in ("missing.json", "lad_ts", "no/such/scenario"):
        refused(*(name if word == "SCENARIO" else word for word in argv), says=[name])


BAD_SCENARIOS = {
    "": "empty",
    "  \n": "empty",
    "{": "line 1",
    "[]": "[]",
    "5": "5",
    '{"slot_s": 1}': "schema",
    '{"schema": "diffpolicy.scenario/1", "slot_s": 1, "slot_s": 2, "servers": []}': "slot_s",
    '{"schema": "diffpolicy.scenario/1", "slot_s": NaN, "servers": [1]}': "servers[0]",
    '{"schema": "diffpolicy.scenario/1", "slot_s": 1, "servers": []}': "servers",
    '{"schema": "diffpolicy.scenario/9", "slot_s": 1, "servers": []}': "diffpolicy.scenario/9",
    "[" * 100_000: "nested",
    '{"schema": "diffpolicy.scenario/1", "slot_s": ' + "1" * 5000 + ', "servers": []}': "scenario",
}


@pytest.mark.parametrize("argv", commands()[:2], ids=lambda argv: argv[0])
@pytest.mark.parametrize("text", BAD_SCENARIOS, ids=lambda x: x[:60])
def test_a_scenario_that_cannot_be_understood_is_refused_with_its_file(refused, tmp_path, argv, text):
    path = tmp_path / "bad.json"
    path.write_text(text)
    message = refused(*(path if word == "SCENARIO" else word for word in argv), says=[path, BAD_SCENARIOS[text]])
    assert len(message) < 1000


def test_a_scenario_that_is_no_text_is_refused(refused, tmp_path):
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe\x00")
    refused("evaluate", "opt-ts", "--scenario", "bad.json", says=["bad.json", "UTF-8"])
    (tmp_path / "folder.json").mkdir()
    refused("evaluate", "opt-ts", "--scenario", "folder.json", says=["folder.json", "folder"])


def test_the_key_and_the_value_of_a_scenario_are_named_with_its_file(refused, tmp_path, scenario):
    data = scenario.to_dict()
    data["servers"][1]["rate_mbit_per_s"] = -7
    (tmp_path / "bad.json").write_text(json.dumps(data))
    says = ["bad.json", "servers[1].rate_mbit_per_s", "-7"]
    refused("evaluate", "opt-ts", "--scenario", "bad.json", says=says)


@pytest.mark.parametrize("argv", [c for c in commands() if c[0] != "replay"], ids=lambda argv: argv[0])
def test_a_scenario_without_a_workload_or_slots_cannot_be_played(refused, tmp_path, scenario, argv):
    for key in ("workload", "slots"):
        data = scenario.to_dict()
        del data[key]
        (tmp_path / "bare.json").write_text(json.dumps(data))
        refused(*("bare.json" if word == "SCENARIO" else word for word in argv), says=["bare.json", key])


def test_figures_that_are_no_numbers_are_refused_or_null(cli, tmp_path, scenario):
    """No work, no sizes: every delay is zero, and so is what it is divided by."""
    data = scenario.to_dict()
    data["workload"]["input_mbit"] = [0, 0]
    data["workload"]["by_index"] |= {"gcycles_per_step": [0.0] * 4, "result_mbit": [0.0] * 4}
    (tmp_path / "idle.json").write_text(json.dumps(data))
    result = cli("evaluate", "local", "opt-ts", "--scenario", "idle.json", "--episodes", 2, "--json")
    assert result.status == 0 or len(result.err.splitlines()) == 1, result
    if result.status == 0:
        assert json.loads(result.out)["policies"]["local"]["mean_delay_s"] == 0


def test_an_evaluation_in_which_nothing_arrives_is_refused(refused, tmp_path, scenario):
    data = scenario.to_dict() | {"slots": 1, "stations": [0]}
    workload = Scenario.from_dict(data).workload
    seed = next(s for s in range(100) if workload.draw(s, Stream.EVALUATION, 0, 0, 1).counts.sum() == 0)
    (tmp_path / "rare.json").write_text(json.dumps(data))
    argv = ["evaluate", "opt-ts", "--scenario", "rare.json", "--episodes", 1, "--seed", seed, "--json"]
    refused(*argv, says=["nothing was decided"])


# Task files

BAD_TASKS = {
    "": ["empty"],
    HEAD: ["no tasks"],
    HEAD + "\n" + GOOD + "\n0,0,1\n": ["line 3", "3 values"],
    HEAD + ",steps\n" + GOOD + ",1\n": ["steps", "twice"],
    HEAD.replace("steps", "stops") + "\n" + GOOD: ["steps"],
    HEAD.replace("server", "host") + "\n" + GOOD: ["server", "no policy"],
    HEAD + "\n0,0,3.5,1,0.25,4,3\n": ["line 2", "server", "3"],
    HEAD + "\n0,0,3.5,1,0.25,4,-1\n": ["line 2", "server", "-1"],
    HEAD + "\n0,7,3.5,1,0.25,4,0\n": ["line 2", "origin", "7"],
    HEAD + "\n0,0,-3.5,1,0.25,4,0\n": ["line 2", "input_mbit", "-3.5"],
    HEAD + "\n0,0,big,1,0.25,4,0\n": ["line 2", "input_mbit", "big"],
    HEAD + "\n0,0,3.5,nan,0.25,4,0\n": ["line 2", "result_mbit", "nan"],
    HEAD + "\n0,0,3.5,1,inf,4,0\n": ["line 2", "gcycles_per_step", "inf"],
    HEAD + "\n0,0,3.5,1,0.25,0,0\n": ["line 2", "steps", "0"],
    HEAD + "\n0,0,3.5,1,0.25,4.5,0\n": ["line 2", "steps", "4.5"],
    HEAD + "\n1," + GOOD[2:] + "\n" + GOOD + "\n": ["line 3", "slot", "0"],
    HEAD + '\n0,0,3.5,"1\n1",0.25,4,0\n': ["line", "result_mbit"],
}


@pytest.mark.parametrize("text", BAD_TASKS, ids=lambda text: text[len(HEAD) :][:50] or text[:10])
def test_a_bad_task_file_is_refused_with_file_line_column_and_value(refused, tmp_path, scenario_file, text):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    argv = ["replay", "--scenario", scenario_file, "--tasks", path, "--out", tmp_path / "out.csv"]
    refused(*argv, says=[path, *BAD_TASKS[text]])


def test_a_task_file_that_is_not_there_is_refused(refused, scenario_file, tmp_path):
    for name in ("missing.csv", tmp_path):
        refused("replay", "--scenario", scenario_file, "--tasks", name, says=[name])


def test_tasks_with_neither_decisions_nor_a_policy_are_refused(refused, scenario_file, write_tasks):
    tasks = write_tasks(GOOD[:-2], columns=HEAD.removesuffix(",server"))
    refused("replay", "--scenario", scenario_file, "--tasks", tasks, says=[tasks, "'server'", "policy"])


def test_local_refuses_tasks_without_origin(refused, scenario_file, write_tasks, tmp_path, scenario):
    argv = ["replay", "--scenario", scenario_file, "--tasks", write_tasks("0,,1,1,1,1,0"), "--policy", "local"]
    refused(*argv, "--out", tmp_path / "out.csv", says=["local"])
    (tmp_path / "null.json").write_text(json.dumps(scenario.to_dict() | {"stations": [0, None]}))
    refused("evaluate", "local", "--scenario", "null.json", says=["local", "station 1"])


def test_delays_beyond_all_numbers_are_refused(refused, tmp_path, write_tasks, scenario):
    data = {"schema": "diffpolicy.scenario/1", "slot_s": 1, "servers": [scenario.to_dict()["servers"][0]]}
    data["servers"][0]["rate_mbit_per_s"] = 1e-300
    (tmp_path / "slow.json").write_text(json.dumps(data))
    tasks = write_tasks("0,,1e300,1,1,1,0")
    refused("replay", "--scenario", "slow.json", "--tasks", tasks, "--json", "--out", tmp_path / "out.csv")


# Policies


@pytest.mark.parametrize(
    "name", ["nonsense", "no/such/folder", "pretrained:nonsense", "opt_ts", "", "x.json", "policy.safetensors"]
)
@pytest.mark.parametrize("argv", [["evaluate"], ["evaluate", "opt-ts", "--baseline"]], ids=" ".join)
def test_a_policy_that_is_not_there_is_refused_by_name(refused, argv, name):
    refused(*argv, name, says=[name])


@pytest.mark.parametrize("name", ["no_such_module:thing", "json:nonsense", "json:codecs", "builtins:str"])
def test_an_attribute_that_is_no_policy_is_refused_by_name(refused, name):
    refused("evaluate", name, *TINY, "--episodes", 1, says=[name])


def test_a_policy_named_twice_is_refused(refused):
    refused("evaluate", "random", "random", says=["random", "twice"])


def test_a_folder_without_a_policy_is_refused(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    refused("evaluate", "empty", says=["empty", "policy.json"])


def test_a_policy_for_other_servers_or_stations_is_refused_by_name(refused, policy_folder, tmp_path, scenario):
    data = scenario.to_dict()
    (tmp_path / "few.json").write_text(json.dumps(data | {"servers": data["servers"][:2]}))
    (tmp_path / "many.json").write_text(json.dumps(data | {"stations": [0, 1, 2, 0]}))
    refused("evaluate", "opt-ts", policy_folder, "--scenario", "few.json", says=[policy_folder, "3 choices", "2"])
    refused("evaluate", "opt-ts", policy_folder, "--scenario", "many.json", says=[policy_folder, "3 agents", "4"])


def replaced(path, value):
    """An edit of a JSON object: the value at a path of keys becomes another one."""

    def edit(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return edit


BAD_POLICIES = [
    (["schema"], "diffpolicy.policy/2", "diffpolicy.policy/2"),
    (["schema"], None, "schema"),
    (["class"], "NoSuchPolicy", "NoSuchPolicy"),
    (["config"], 3, "config"),
    (["config"], "text", "config"),
    (["config"], {}, "config"),
    (["trained"], 5, "trained"),
    (["config", "colour"], 1, "colour"),
    (["config", "choices"], 4, "shape"),
    (["config", "choices"], -1, "-1"),
    (["config", "choices"], 10**13, str(10**13)),
    (["config", "choices"], "3", "config"),
    (["config", "observation_dim"], 9, "observation_dim 9"),
    (["config", "agents"], "x", "config"),
    (["config", "steps"], 0, "steps"),
    (["config", "steps"], "2", "config"),
    (["config", "schedule"], "wavy", "wavy"),
    (["config", "sampler"], "euler", "euler"),
    (["config", "sampler_steps"], 9, "9"),
    (["config", "prior"], {"type": "Nothing"}, "Nothing"),
    (["config", "prior"], 3, "config"),
    (["config", "head"], {"draw": "worst"}, "worst"),
    (["config", "denoiser", "act"], "wavy", "wavy"),
    (["config", "denoiser"], {"hidden": [-3]}, "-3"),
    (["config", "information"], "all", "all"),
    (["config", "action_key"], "nowhere", "nowhere"),
    (["config", "observation_keys"], ["nowhere"], "nowhere"),
    (["config", "observation_keys"], 5, "config"),
    (["config", "mask_key"], "nowhere", "nowhere"),
    (["config", "seed"], "x", "seed"),
]


@pytest.mark.parametrize("case", BAD_POLICIES, ids=lambda case: json.dumps(case[:2])[:60])
def test_a_policy_file_of_another_form_is_refused(refused, policy_folder, scenario_file, case):
    path, value, says = case
    file = policy_folder / "policy.json"
    data = json.loads(file.read_text())
    replaced(path, value)(data)
    file.write_text(json.dumps(data))
    refused("evaluate", policy_folder, "--scenario", scenario_file, "--episodes", 1, says=[policy_folder, says])


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_policy_file_that_is_no_json_object_is_refused(refused, policy_folder, scenario_file, text):
    (policy_folder / "policy.json").write_text(text)
    refused("evaluate", policy_folder, "--scenario", scenario_file, says=[policy_folder])


@pytest.mark.parametrize("keep", [None, 0, 5, 100, -1])
def test_corrupt_tensors_are_refused(refused, policy_folder, scenario_file, keep):
    path = policy_folder / "policy.safetensors"
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:keep])
    refused("evaluate", policy_folder, "--scenario", scenario_file, says=[path])


def test_tensors_that_are_missing_are_refused(refused, policy_folder, scenario_file):
    from safetensors.torch import load_file, save_file

    path = policy_folder / "policy.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    save_file({k: v for k, v in tensors.items() if k != name}, path)
    refused("evaluate", policy_folder, "--scenario", scenario_file, says=[policy_folder, name])


def test_a_remembered_action_of_another_shape_is_refused(refused, policy_folder, scenario_file):
    from safetensors.torch import load_file, save_file

    path = policy_folder / "policy.safetensors"
    save_file(load_file(path) | {"remembered": torch.zeros(1, 5, 4, 3)}, path)
    refused("evaluate", policy_folder, "--scenario", scenario_file, "--episodes", 1, says=[policy_folder, "remembered"])


def test_more_sampler_steps_than_there_are_is_refused(refused, policy_folder, scenario_file):
    argv = ["evaluate", policy_folder, "--scenario", scenario_file, "--sampler", "ddim", "--sampler-steps", 7]
    refused(*argv, says=[policy_folder, "7", "2"])


# Where it is written


def test_an_output_file_that_cannot_be_written_is_refused(refused, scenario_file, write_tasks, tmp_path):
    (tmp_path / "file").write_text("x")
    argv = ["replay", "--scenario", scenario_file, "--tasks", write_tasks(GOOD), "--out"]
    for out in (tmp_path / "file" / "out.csv", tmp_path / "no" / "out.csv", tmp_path):
        refused(*argv, out, says=[out])
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("argv", [["train", "sac-ts"], ["compare"]], ids=lambda x: x[0])
def test_an_output_folder_that_cannot_be_made_is_refused(refused, tmp_path, argv):
    (tmp_path / "file").write_text("x")
    for out in ("file", "file/sub"):
        refused(*argv, "--out", tmp_path / out, says=[tmp_path / out])


# Methods

SAC = """\
class_path: diffpolicy.methods.SACMethod
init_args:
  transitions: diffpolicy.edge.task_transitions
  learning_rates: {actor: 1.0e-4, critic: 1.0e-3, alpha: 3.0e-4}
"""
LAD = SAC.replace("SACMethod", "DiffusionSACMethod")
DQN = SAC.replace("SACMethod", "DQNMethod").replace("actor: 1.0e-4, critic: 1.0e-3, alpha: 3.0e-4", "critic: 1.0e-4")
BAD_METHODS = {
    "empty": ("", "class_path"),
    "list": ("- 1\n", "class_path"),
    "broken": ("class_path: [\n", "YAML"),
    "no class": ("init_args: {}\n", "class_path"),
    "no module": ("class_path: nowhere.Method\n", "nowhere"),
    "another class": ("class_path: collections.OrderedDict\n", "OrderedDict"),
    "abstract": ("class_path: diffpolicy.methods.Method\n", "abstract"),
    "unknown key": (SAC + "  colour: 1\n", "colour"),
    "unknown key above": (SAC + "colour: 1\n", "colour"),
    "no such function": (SAC.replace("task_transitions", "nonsense"), "nonsense"),
    "no rates": (SAC.replace("alpha: 3", "omega: 3"), "omega"),
    "rate is text": (SAC.replace("1.0e-4", "fast"), "fast"),
    "rate is negative": (SAC.replace("1.0e-4", "-0.5"), "-0.5"),
    "gamma is text": (SAC + "  gamma: high\n", "high"),
    "gamma is negative": (SAC + "  gamma: -0.25\n", "-0.25"),
    "gamma is no number": (SAC + "  gamma: .nan\n", "nan"),
    "tau is large": (SAC + "  tau: 5\n", "tau"),
    "alpha is negative": (SAC + "  alpha: -0.25\n", "-0.25"),
    "hidden is text": (SAC + "  hidden: wide\n", "wide"),
    "hidden is zero": (SAC + "  hidden: [0]\n", "hidden"),
    "hidden is negative": (SAC + "  hidden: [-3]\n", "-3"),
    "activation": (SAC + "  act: wavy\n", "wavy"),
    "batch is zero": (SAC + "  batch_size: 0\n", "batch_size"),
    "batch is negative": (SAC + "  batch_size: -4\n", "-4"),
    "capacity": (SAC + "  capacity: 0\n", "capacity"),
    "updates": (SAC + "  updates: -2\n", "-2"),
    "rollout": (SAC + "  rollout_steps: 7\n", "7"),
    "draw": (SAC + "  draw: worst\n", "worst"),
    "prior": (LAD + "  prior: {type: Nothing}\n", "Nothing"),
    "prior's key": (LAD + "  prior: {type: ActionMemory, key: door}\n", "door"),
    "prior's switch": (LAD + "  prior: {type: ActionMemory, colour: 1}\n", "colour"),
    "prior without type": (LAD + "  prior: {key: task}\n", "prior"),
    "schedule": (LAD + "  schedule: wavy\n", "wavy"),
    "steps": (LAD + "  steps: 0\n", "steps"),
    "steps are text": (LAD + "  steps: many\n", "many"),
    "sampler": (LAD + "  sampler: euler\n", "euler"),
    "sampler's steps": (LAD + "  sampler_steps: 9\n", "9"),
    "output": (LAD + "  denoiser_output: wavy\n", "wavy"),
    "odd time": (LAD + "  time: 3\n", "time"),
    "no time": (LAD + "  time: 0\n", "time"),
    "epsilon": (DQN + "  epsilon: 7\n", "7"),
    "target interval": (DQN + "  target_interval: 0\n", "target_interval"),
}


@pytest.mark.parametrize("case", BAD_METHODS)
def test_a_method_file_that_describes_no_method_is_refused(refused, tmp_path, case):
    text, says = BAD_METHODS[case]
    (tmp_path / "bad.yaml").write_text(text)
    message = refused("train", "bad.yaml", *TINY, "--episodes", 1, "--out", tmp_path / "run", says=[says])
    assert "checkpoint" not in message


@pytest.mark.parametrize("name", ["nonsense", "lad_ts", "missing.yaml", "no_such_module:thing", "json:dumps", ""])
@pytest.mark.parametrize("argv", [["train"], ["compare", "--methods"]], ids=lambda x: x[0])
def test_a_method_that_is_not_there_is_refused_by_name(refused, argv, name):
    refused(*argv, name, says=[name])


def test_a_method_named_twice_is_refused(refused, tmp_path):
    refused("compare", "--methods", "sac-ts,sac-ts", "--out", tmp_path / "run", says=["sac-ts", "twice"])


@pytest.mark.parametrize(
    ("option", "value"), [("--accelerator", "abacus"), ("--devices", "many"), ("--devices", "0"), ("--precision", "3")]
)
def test_a_device_that_lightning_does_not_know_is_refused(refused, tmp_path, option, value):
    argv = ["train", "sac-ts", *TINY, "--episodes", 1, "--out", tmp_path / "run", option, value]
    refused(*argv, says=[value])


# Configurations and checkpoints

BAD_CONFIGS = {
    "": "options and values",
    "- episodes\n": "episodes",
    "episodes: [\n": "YAML",
    "colour: red\n": "colour",
    "5: red\n": "5",
    "help: true\n": "help",
    "config: other.yaml\n": "config",
    "method: sac-ts\n": "method",
    "episodes: 0\n": "episodes",
    "episodes: many\n": "many",
    "episodes: 1.5\n": "1.5",
    "episodes: true\n": "episodes",
    "episodes: null\n": "episodes",
    "episodes: [3]\n": "episodes",
    "json: maybe\n": "maybe",
    "capacity: 20\n": "capacity",
    "seed: -1\n": "seed",
    "scenario: missing.json\n": "missing.json",
}


@pytest.mark.parametrize("text", BAD_CONFIGS)
def test_a_config_file_that_is_no_set_of_options_is_refused(refused, tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    argv = ["train", "sac-ts", "--slots", 2, "--config", "bad.yaml", "--out", tmp_path / "run"]
    message = refused(*argv, says=[BAD_CONFIGS[text]])
    if "scenario" not in text:
        assert "bad.yaml" in message


def test_a_config_file_that_is_not_there_is_refused(refused):
    refused("train", "sac-ts", "--config", "missing.yaml", says=["missing.yaml"])


def pickled(value):
    return lambda path: torch.save(value, path)


BAD_CHECKPOINTS = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"hello\n"),
    "text that begins like a pickle": lambda path: path.write_bytes(b"garbage\n"),
    "half a zip": lambda path: path.write_bytes(b"PK\x03\x04 xx"),
    "a list": pickled([1]),
    "a number": pickled(3),
    "another dictionary": pickled({"a": 1}),
    "weights alone": pickled({"state_dict": {}}),
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
def test_a_checkpoint_that_is_none_is_refused(refused, tmp_path, case):
    path = tmp_path / "bad.ckpt"
    BAD_CHECKPOINTS[case](path)
    refused("train", "sac-ts", *TINY, "--episodes", 1, "--resume", path, "--out", tmp_path / "run", says=[path])


def test_a_checkpoint_that_is_not_there_is_refused(refused, tmp_path):
    argv = ["train", "sac-ts", *TINY, "--episodes", 1, "--out", tmp_path / "run", "--resume", "missing.ckpt"]
    refused(*argv, says=["missing.ckpt"])


@pytest.mark.parametrize(
    "other", [["dqn-ts", *TINY], ["lad-ts", *TINY], ["sac-ts", "--stations", 3, "--slots", 2, "--tasks", 3]]
)
def test_a_checkpoint_of_another_method_or_scenario_is_refused(cli, refused, tmp_path, other):
    assert cli("train", "sac-ts", *TINY, "--episodes", 1, "--out", tmp_path / "first").status == 0
    path = tmp_path / "first" / "checkpoint.ckpt"
    refused("train", *other, "--episodes", 2, "--resume", path, "--out", tmp_path / "second", says=[path])


# As a process


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["evaluate", "nonsense"], "nonsense"),
        (["evaluate", "opt-ts", "--episodes", "0"], "--episodes"),
        (["replay", "--scenario", "lad-ts", "--tasks", "missing.csv"], "missing.csv"),
    ],
)
def test_the_process_ends_with_two_and_one_sentence(argv, says):
    done = subprocess.run([sys.executable, "-m", "diffpolicy", *argv], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


# Exports and sweeps


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["export", "opt-ts", "--out", "x.onnx"], "opt-ts"),
        (["export", "runs/none", "--out", "x.onnx"], "runs/none"),
        (["export", "opt-ts"], "--out"),
        (["export", "opt-ts", "--format", "tflite", "--out", "x"], "tflite"),
        (["compare", "--sweep", "colour=1,2"], "colour=1,2"),
        (["compare", "--sweep", "tasks"], "tasks"),
        (["compare", "--sweep", "tasks="], "tasks="),
        (["compare", "--sweep", "tasks=1,x"], "x"),
        (["compare", "--sweep", "tasks=1,1"], "tasks=1,1"),
        (["compare", "--sweep", "capacity=10"], "10"),
        (["compare", "--sweep", "denoising-steps=1,2", "--methods", "sac-ts", *map(str, TINY)], "sac-ts"),
        (["compare", "--sweep", "temperature=-1", "--methods", "sac-ts", *map(str, TINY)], "-1"),
        (["compare", "--sweep", "tasks=0,1", "--methods", "sac-ts"], "0"),
    ],
)
def test_exports_and_sweeps_that_cannot_be_are_refused(refused, argv, says):
    refused(*argv, says=[says])


def test_an_agent_that_is_not_there_is_refused(refused, tmp_path):
    from diffpolicy.edge.training import build

    build("sac-ts", Scenario.load("lad-ts").override(stations=2, slots=2)).policy.save(tmp_path / "policy")
    refused("export", tmp_path / "policy", "--agent", 2, "--out", tmp_path / "x.onnx", says=["2"])
    refused("export", tmp_path / "policy", "--out", tmp_path / "no" / "x.onnx", says=["no"])
    assert not (tmp_path / "x.onnx").exists()


def test_compiling_without_a_compiler_is_refused_in_one_sentence(cli, tmp_path, monkeypatch):
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    method = quick_method("sac-ts", tmp_path, start_after=5)
    words = ["--stations", 2, "--slots", 4, "--tasks", 3, "--episodes", 2, "--compile"]
    with config.patch(
        {"cpp.cxx": (None, str(tmp_path / "none"))}
    ):  # which puts back what was there, as nobody else does
        done = cli("train", method, *words, "--out", tmp_path / "out")
    torch._dynamo.reset()
    assert done.status == 2
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("diffpolicy: the updates cannot be compiled here")
    assert str(tmp_path / "none") in last
