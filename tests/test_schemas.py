"""The JSON Schemas of the files: they are what the script writes, take every bundled file, and refuse wrong ones."""

import copy
import json
import runpy
from pathlib import Path

import pytest

from diffpolicy import DiffusionPolicy
from diffpolicy.edge import OffloadingEnv, OffloadingProblem, RequestType, RequestWorkload, Scenario, Server
from diffpolicy.edge.serving import read_workers
from diffpolicy.errors import InputError
from diffpolicy.experiments.plan import Plan, jobs_of
from diffpolicy.experiments.work import work

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).resolve().parent.parent
EDGE = ROOT / "src" / "diffpolicy" / "edge"
SCHEMAS = ROOT / "docs" / "_static" / "schemas"


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def validator(name):
    schema = read(SCHEMAS / f"{name}.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_files_are_what_the_script_writes():
    script = runpy.run_path(str(ROOT / "docs" / "schemas.py"))
    made = {name: script["text_of"](schema) for name, schema in script["all_schemas"]().items()}
    assert made == {path.name: path.read_text(encoding="utf-8") for path in SCHEMAS.glob("*.json")}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("scenario", sorted(EDGE.glob("scenarios/*.json"))),
        ("server_profile", sorted(EDGE.glob("hardware/profiles/*.json"))),
        ("policy", sorted(EDGE.glob("pretrained/*/policy.json"))),
    ],
)
def test_every_bundled_file_is_taken(name, files):
    assert files
    for path in files:
        validator(name).validate(read(path))


def requests(**own):
    kind = RequestType(width=512, height=512, steps=20, gcycles_per_step=0.1, input_mbit=1.0, result_mbit=2.0)
    return RequestWorkload(rate_per_s=4.0, mix=(kind,), **own)


@pytest.mark.parametrize(
    "workload",
    [
        None,
        requests(kind="poisson"),
        requests(kind="gamma", cv=2.0),
        requests(kind="on-off", on_s=2.0, off_s=1.0),
        requests(kind="daily", amplitude=0.5),
        requests(kind="daily", hourly_weights=(1.0,) * 24),
    ],
    ids=lambda w: getattr(w, "kind", "none"),
)
def test_what_the_package_writes_is_taken(workload):
    scenario = Scenario(slot_s=1.0, servers=(Server(40.0, 450.0, name="a"),), workload=workload, stations=(0, None))
    validator("scenario").validate(scenario.to_dict())
    validator("scenario").validate(Scenario.load("lad-ts").to_dict())


WRONG_SCENARIOS = {
    "another schema": lambda s: s.update(schema="diffpolicy.scenario/2"),
    "an unknown key": lambda s: s.update(slot=2),
    "no server": lambda s: s.update(servers=[]),
    "no length of a slot": lambda s: s.pop("slot_s"),
    "a slot of no length": lambda s: s.update(slot_s=0),
    "a capacity in words": lambda s: s["servers"][0].update(capacity_gcycles_per_s="fast"),
    "an unknown workload": lambda s: s["workload"].update(kind="weekly"),
    "a key of another workload": lambda s: s["workload"].update(cv=1.0),
    "half a pair": lambda s: s["workload"].update(input_mbit=[2.0]),
    "outages of two kinds": lambda s: s["servers"][0].update(availability={"down_s": [[0, 1]], "mtbf_s": 1}),
}


@pytest.mark.parametrize("wrong", WRONG_SCENARIOS)
def test_a_wrong_scenario_is_refused(wrong):
    scenario = Scenario.load("lad-ts").to_dict()
    WRONG_SCENARIOS[wrong](scenario)
    assert not validator("scenario").is_valid(scenario)


WRONG_PROFILES = {
    "another schema": lambda p: p.update(schema="diffpolicy.server_profile/2"),
    "an unknown key": lambda p: p["server"].update(colour="red"),
    "no name": lambda p: p["server"].pop("name"),
    "a negative time": lambda p: p["fit"].update(text_s=-1.0),
    "a step of no time": lambda p: p["fit"]["sizes"][0].update(step_s=0),
    "half a picture": lambda p: p["fit"]["sizes"][0].update(width=0),
}


@pytest.mark.parametrize("wrong", WRONG_PROFILES)
def test_a_wrong_profile_is_refused(wrong):
    profile = copy.deepcopy(read(EDGE / "hardware" / "profiles" / "tiny-cpu.json"))
    WRONG_PROFILES[wrong](profile)
    assert not validator("server_profile").is_valid(profile)


def test_a_saved_policy_is_taken_and_one_without_a_class_refused(tmp_path):
    scenario = Scenario.load("lad-ts").override(stations=2, slots=2, tasks=2)
    DiffusionPolicy.from_specs(OffloadingEnv(scenario), steps=2).save(tmp_path)
    description = read(tmp_path / "policy.json")
    validator("policy").validate(description)
    for key, value in (("class", None), ("schema", "diffpolicy.policy/2"), ("tensors_sha256", "abc")):
        assert not validator("policy").is_valid({**description, key: value})


def test_the_description_of_a_decision_is_taken_and_wrong_ones_refused():
    entry = {"name": "observation", "shape": ["M", 22], "dtype": "float32", "meaning": "what is seen"}
    action = {"name": "action", "shape": ["M"], "dtype": "int64"}
    good = {"schema": "diffpolicy.decision/1", "format": "onnx", "inputs": [entry], "outputs": [action]}
    validator("decision").validate(good)
    wrong = [{"format": "zip"}, {"inputs": []}, {"file_sha256": "no"}]
    wrong += [{"inputs": [{**entry, **change}]} for change in ({"dtype": "float16"}, {"shape": [0]}, {"size": 1})]
    for change in wrong:
        assert not validator("decision").is_valid({**good, **change}), change


def test_the_outcome_of_a_job_is_taken_and_wrong_ones_refused(tmp_path):
    problem = OffloadingProblem(Scenario.load("lad-ts").override(stations=2, slots=2, tasks=3))
    plan = Plan(problem=problem, methods=("dqn-ts",), episodes=1, eval_episodes=1, out=tmp_path, seconds=None)
    work(jobs_of(plan, 0.0)[0])
    (path,) = tmp_path.rglob("outcome.json")
    outcome = read(path)
    validator("outcome").validate(outcome)
    assert outcome["history"]
    for change in ({"finished": "yes"}, {"train_seconds": -1}, {"history": [{"cost": 1.0}]}, {"more": 1}):
        assert not validator("outcome").is_valid({**outcome, **change}), change


@pytest.mark.parametrize(
    ("own", "right"),
    [
        ({}, True),
        ({"name": "a", "slots": 2, "models": ["m"], "speed": 0.5, "api_key_env": "KEY", "kind": "openai"}, True),
        ({"kind": "comfyui", "workflow": "w.json", "nodes": {"steps": "3"}}, True),
        ({"slots": 0}, False),
        ({"kind": "other"}, False),
        ({"models": [""]}, False),
        ({"speed": 0}, False),
        ({"seats": 1}, False),
    ],
)
def test_the_schema_of_a_workers_file_takes_what_its_reader_takes(tmp_path, own, right):
    file = tmp_path / "workers.json"
    file.write_text(json.dumps({"workers": [{"url": "http://127.0.0.1:8001", **own}]}), encoding="utf-8")
    assert validator("workers").is_valid(read(file)) is right
    if right:
        assert len(read_workers(str(file))) == 1
    else:
        with pytest.raises(InputError):
            read_workers(str(file))
