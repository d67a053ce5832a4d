"""Exported files: their description is checked field by field, and machine code is loaded only as what it is."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from diffpolicy import FeedforwardPolicy, InputError
from diffpolicy.policies.files import portable
from test_faults_saving import mutated

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from diffpolicy.export import ExportedDecision, description, export_decision  # noqa: E402

DESCRIPTION = {
    "format": "onnx",
    "version": "0.1.0",
    "inputs": [{"name": "observation", "shape": ["rows", 3], "dtype": "float32", "meaning": "what is observed"}],
    "outputs": [
        {"name": "action", "shape": ["rows"], "dtype": "int64", "meaning": "the choice"},
        {"name": "logits", "shape": ["rows", 3], "dtype": "float32", "meaning": "of the choices"},
    ],
    "policy": {"class": "CategoricalPolicy", "trained": {}},
    "largest_difference": 0.0,
}


def graph():
    """An ONNX file whose logits are the observation, made by hand: an export takes seconds."""
    kind, value = onnx.TensorProto, onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("ArgMax", ["observation"], ["action"], axis=-1, keepdims=0),
        onnx.helper.make_node("Identity", ["observation"], ["logits"]),
    ]
    outputs = [value("action", kind.INT64, ["rows"]), value("logits", kind.FLOAT, ["rows", 3])]
    made = onnx.helper.make_graph(nodes, "decision", [value("observation", kind.FLOAT, ["rows", 3])], outputs)
    opset = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(made, opset_imports=opset, ir_version=9).SerializeToString()


@pytest.fixture
def exported(tmp_path, monkeypatch):
    monkeypatch.setattr("diffpolicy._pairs.PAUSES_S", (0.0,))
    path = tmp_path / "decision.onnx"
    description.write(path, DESCRIPTION, graph())
    return path


@pytest.fixture
def no_native_code(monkeypatch):
    def load(*_):
        raise AssertionError("native code was loaded")

    monkeypatch.setattr("torch._inductor.aoti_load_package", load)


def sidecar(path, **changes):
    data = json.loads(Path(f"{path}.json").read_text())
    data = {k: v for k, v in {**data, **changes}.items() if v is not ...}
    Path(f"{path}.json").write_text(json.dumps(data))


def test_what_was_written_decides(exported):
    observation = torch.eye(3)
    assert ExportedDecision(exported)(observation=observation)["action"].tolist() == [0, 1, 2]
    assert sorted(os.listdir(exported.parent)) == ["decision.onnx", "decision.onnx.json"]


def test_a_mutated_description_is_refused_or_is_the_same_decision(exported, no_native_code):
    draw = random.Random(0)
    good = json.loads(Path(f"{exported}.json").read_text())
    kept = 0
    for k in range(600):
        data = mutated(good, draw)
        if k % 2:  # as an earlier version wrote it, which has no digests
            data = {name: value for name, value in data.items() if not name.endswith("sha256")}
        Path(f"{exported}.json").write_text(json.dumps(data))
        try:
            outputs = ExportedDecision(exported)(observation=torch.eye(3))
        except InputError:
            continue
        assert outputs["action"].tolist() == [0, 1, 2]
        kept += 1
    assert 0 < kept < 300


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "aoti"}, "format"),
        ({"format": "tflite"}, "tflite"),
        ({"format": ["onnx"]}, "format must be"),
        ({"inputs": []}, "inputs must hold"),
        ({"inputs": DESCRIPTION["outputs"]}, "inputs"),
        ({"outputs": DESCRIPTION["inputs"]}, "'action'"),
        ({"file_sha256": "0" * 64}, "not the one"),
        ({"file_sha256": 3}, "file_sha256"),
        ({"signature_sha256": "0" * 64}, "export the policy again"),
        ({"largest_difference": -1}, "largest_difference"),
        ({"policy": []}, "policy must be an object"),
        ({"schema": "diffpolicy.decision/2"}, "decision/2"),
    ],
)
def test_a_wrong_field_is_named(changes, says, exported, no_native_code):
    sidecar(exported, **changes)
    with pytest.raises(InputError, match=says) as error:
        ExportedDecision(exported)
    assert "decision.onnx" in str(error.value)


@pytest.mark.parametrize("name", ["decision.pt2", "decision.bin"])
def test_an_onnx_file_is_never_loaded_as_machine_code(name, exported, no_native_code):
    path = exported.with_name(name)
    description.write(path, {**DESCRIPTION, "format": "aoti"}, graph())
    with pytest.raises(InputError, match="content is none"):
        ExportedDecision(path)


def test_machine_code_is_loaded_only_with_its_digest(tmp_path, monkeypatch, no_native_code):
    monkeypatch.setattr("diffpolicy._pairs.PAUSES_S", (0.0,))
    path = tmp_path / "decision.pt2"
    description.write(path, {**DESCRIPTION, "format": "aoti"}, b"PK\x03\x04 machine code")
    with pytest.raises(AssertionError, match="native code"):
        ExportedDecision(path)
    sidecar(path, inputs=[{**DESCRIPTION["inputs"][0], "shape": ["rows", 2]}])
    with pytest.raises(InputError, match="not those that it was written with"):
        ExportedDecision(path)
    description.write(path, {**DESCRIPTION, "format": "aoti"}, b"PK\x03\x04 machine code")
    path.write_bytes(b"PK\x03\x04 other code")
    with pytest.raises(InputError, match="not the one that its description was written with"):
        ExportedDecision(path)
    sidecar(path, file_sha256=..., signature_sha256=...)
    with pytest.raises(InputError, match="export the policy again"):
        ExportedDecision(path)


def test_a_description_without_digests_must_fit_the_graph(exported):
    sidecar(exported, file_sha256=..., signature_sha256=...)
    assert ExportedDecision(exported)(observation=torch.eye(3))["action"].tolist() == [0, 1, 2]
    sidecar(exported, inputs=[{**DESCRIPTION["inputs"][0], "shape": ["rows", 4]}])
    with pytest.raises(InputError, match="the graph's"):
        ExportedDecision(exported)


def test_an_exporter_that_dies_between_its_files_leaves_the_old_pair_or_the_new(exported, monkeypatch):
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: 1 / 0 if str(b).endswith(".json") else replace(a, b))
    for moment in ("pending", "last"):
        if moment == "last":
            monkeypatch.setattr(
                Path, "replace", lambda a, b: 1 / 0 if b.name == "decision.onnx.json" else replace(a, b)
            )
        with pytest.raises(ZeroDivisionError):
            description.write(exported, {**DESCRIPTION, "version": "new"}, graph() + b"")
        assert ExportedDecision(exported)(observation=torch.eye(3))["action"].tolist() == [0, 1, 2]


def test_a_file_of_another_formats_name_is_refused_before_any_work(tmp_path):
    for name, form in (("x.pt2", "onnx"), ("x.onnx", "aoti")):
        with pytest.raises(InputError, match=name):
            export_decision(FeedforwardPolicy(choices=3, observation_dim=2), tmp_path / name, form)


# Nothing of the machine

HOME = ["/home/jane/x/own.yaml", "C:\\Users\\jane\\own.yaml", "~/jane/own.yaml", "\\\\server\\jane\\own.yaml"]


@pytest.mark.parametrize(
    "text", [*HOME, Path("/home/jane/own.yaml"), *(f"train --method={h} --seed 0" for h in HOME[:3])]
)
def test_an_absolute_path_keeps_its_last_part_only(text):
    left = portable({"a": [text]})["a"][0]
    assert "jane" not in left
    assert "own.yaml" in left


@pytest.mark.parametrize(
    "text", ["lad-ts", "runs/own.yaml", "tasks/s and 1/2", "Mbit /s", "https://example.org/a/b", "/", "a: b"]
)
def test_other_texts_stay_as_they_are(text):
    assert portable(text) == text


def nothing_of_the_machine(content, *more):
    for folder in (Path.home(), Path.cwd(), Path(torch.__file__).parents[1], Path(__file__).parents[1], *more):
        assert str(folder).encode() not in content, folder


def test_a_policy_names_no_folder_of_the_machine(tmp_path):
    policy = FeedforwardPolicy(choices=3, observation_dim=2)
    policy.trained |= {
        "method": str(tmp_path / "own.yaml"),
        "command": f"train {tmp_path}/own.yaml --out {Path.cwd()}/x",
    }
    policy.save(tmp_path / "saved")
    for file in (tmp_path / "saved").iterdir():
        nothing_of_the_machine(file.read_bytes(), tmp_path)
    assert json.loads((tmp_path / "saved" / "policy.json").read_text())["trained"]["method"] == "own.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "aoti"])
def test_an_export_names_no_folder_of_the_machine(form, tmp_path):
    pytest.importorskip("onnxscript")
    if form == "aoti" and (shutil.which("g++") is None or shutil.which("strip") is None):
        pytest.skip("needs a C++ compiler")
    policy = FeedforwardPolicy(choices=3, observation_dim=2)
    policy.trained["method"] = str(tmp_path / "own.yaml")
    path = tmp_path / f"decision{description.SUFFIX[form]}"
    export_decision(policy, path, form)
    for file in tmp_path.iterdir():
        nothing_of_the_machine(file.read_bytes(), tmp_path, "/tmp/torchinductor")
    outputs = ExportedDecision(path)(observation=torch.rand(4, 2), uniform=torch.rand(4))
    assert outputs["action"].shape == (4,)
