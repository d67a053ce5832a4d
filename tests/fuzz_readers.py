"""Every reader of files of the package with valid files for it, from which the fuzz test makes invalid ones."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from diffpolicy.edge import Scenario
from toys import small

ALIBABA = (
    "gmt_create,predict_type,predict_status,exec_time_seconds,num_images_per_prompt,num_inference_steps,"
    "checkpoint_model_version_id\n"
)
TASKS = "{},origin,input_mbit,result_mbit,gcycles_per_step,steps,server,model,width,height,images,note\n"
DATES = "2024-11-15 16:57:{:02}"
MIX = {
    "model": "m",
    "width": 512,
    "height": 512,
    "steps": 20,
    "images": 1,
    "gcycles_per_step": 0.5,
    "input_mbit": 0.1,
    "result_mbit": 1.0,
    "weight": 1.0,
}
AMOUNTS = [0.25, 0.5, 0.75, 1.0]
SLOTS = {
    "kind": "lad-ts",
    "tasks_per_station_and_slot": [0, 4],
    "input_mbit": [2.0, 5.0],
    "by_index": {"gcycles_per_step": AMOUNTS, "steps": [3, 4, 2, 9], "result_mbit": AMOUNTS},
}


@dataclass(frozen=True)
class Reader:
    """One reader.

    Args:
        name: in the table. samples: valid sets of files, made at first use: name -> content.
        forms: of the files that are damaged, by name; see `mutate`.
        read: reads the set in a folder.
        weight: how many inputs it gets, relative to the others; a slow reader gets fewer.
    """

    name: str
    samples: Callable[[], list[Mapping[str, bytes]]]
    forms: Mapping[str, str]
    read: Callable[[Path], Any]
    weight: float = 1.0


def one(name: str, *texts: str) -> Callable[[], list[Mapping[str, bytes]]]:
    """Sets of one file each."""
    return lambda: [{name: text.encode()} for text in texts]


def task_files() -> list[Mapping[str, bytes]]:
    """With slots, with times of arrival, and with a value in quotes that holds a line break."""
    row = "{},{},3.5,0.8,0.25,20,{},m,512,768,1,{}\n"
    rows = [row.format(k // 2, 0 if k else "", k % 2, f"n{k}") for k in range(8)]
    slots = TASKS.format("slot") + "".join(rows)
    times = (
        TASKS.format("arrival_s") + "".join(r.replace(",", ".5,", 1) for r in rows) + '9,0,1,1,1,1,0,m,1,1,1,"a\nb"\n'
    )
    return [{"tasks.csv": slots.encode()}, {"tasks.csv": times.encode()}]


@cache
def measured() -> Scenario:
    """A scenario that reads the columns of models and sizes too."""
    return Scenario.load("gpu-mix")


def read_tasks(folder: Path) -> Any:
    """As `replay` reads a task file."""
    from diffpolicy.edge import TaskList

    return TaskList.read(folder / "tasks.csv", measured(), decisions=True)


def read_workload(folder: Path) -> Any:
    """As a scenario's workload reads it."""
    from diffpolicy.edge.workload.recorded import TraceWorkload
    from diffpolicy.edge.workload.seeds import Stream

    work = TraceWorkload("tasks.csv", 0.5, folder=folder)
    return work.draw(0, Stream.EVALUATION, 0, 1, 2**60)


def read_trace(kind: str, **options: Any) -> Callable[[Path], Any]:
    """A reader of recorded traces, and the task file made of what it reads."""

    def read(folder: Path) -> Any:
        from diffpolicy.edge.workload.traces import readers as traces

        trace = getattr(traces, f"read_{kind}")(folder / "trace", **options)
        assert len(trace) + trace.broken.count >= 1
        return trace.with_steps(20).to_tasks(folder / "out.csv", 3)

    return read


def scenarios() -> list[Mapping[str, bytes]]:
    """One of each kind of workload, with availability and measured times."""
    servers = [{"capacity_gcycles_per_s": 4.0, "rate_mbit_per_s": 50.0, "name": f"s{k}"} for k in range(3)]
    servers[0]["availability"] = {"mtbf_s": 50.0, "mttr_s": 5.0}
    servers[1]["availability"] = {"down_s": [[1.0, 2.0], [5.0, 6.5]]}
    base = {"schema": "diffpolicy.scenario/1", "slot_s": 0.5, "slots": 5, "servers": servers, "stations": [0, 1, None]}
    laws: list[dict[str, Any]] = [
        {"kind": "poisson"},
        {"kind": "gamma", "cv": 2.0},
        {"kind": "on-off", "on_s": 3.0, "off_s": 5.0},
        {"kind": "daily", "hourly_weights": [1.0] * 24},
    ]
    works = [SLOTS, *({**law, "rate_per_s": 3.0, "mix": [MIX, MIX]} for law in laws)]
    works.append({"kind": "trace", "file": "tasks.csv", "train_share": 0.5, "rate_per_s": 2.0})
    documents = [{**base, "workload": work} for work in works] + [measured().to_dict()]
    tasks = task_files()[1]
    return [{"scenario.json": json.dumps(document).encode(), **tasks} for document in documents]


def read_scenario(folder: Path) -> Any:
    """Reads a scenario and tells what is told of it."""
    scenario = Scenario.load(folder / "scenario.json")
    return scenario.to_dict()


def profiles() -> list[Mapping[str, bytes]]:
    """Two of the shipped profiles, and one that tells how many requests gain by being served at once."""
    from diffpolicy.edge.hardware.schema.server_profile import _folder, shipped

    whole = [(_folder() / f"{name}.json").read_bytes() for name in list(shipped())[:2]]
    size = {"batch": 1, "width": 512, "height": 512, "steps": 20}
    rates = [{"concurrency": n, **size, "images_per_s": 1.0 + 0.2 * n} for n in (1, 2, 4)]
    several = {**json.loads(whole[0]), "throughput": rates, "slots": 2}
    return [{"profile.json": content} for content in (*whole, json.dumps(several).encode())]


def read_profile(folder: Path) -> Any:
    """Reads a server's profile, and asks it for a call's time."""
    from diffpolicy.edge.hardware.schema.server_profile import ServerProfile

    profile = ServerProfile.load(folder / "profile.json")
    return profile.to_dict(), profile.together, profile.service_s(640, 640, 20)


def policies() -> list[Mapping[str, bytes]]:
    """A diffusion policy with memory, one of values, and a learned rule."""
    from diffpolicy.edge.training import build

    sets = []
    with TemporaryDirectory() as folder:
        for name in ("lad-ts", "dqn-ts", "d2sac-ts"):
            saved = build(name, small(2, 3, 3)).policy.save(Path(folder) / name)
            sets.append({file: (saved / file).read_bytes() for file in ("policy.json", "policy.safetensors")})
    import diffpolicy.edge

    bundled = Path(diffpolicy.edge.__file__).parent / "pretrained" / "price"
    return [*sets, {file: (bundled / file).read_bytes() for file in ("policy.json", "policy.safetensors")}]


def read_policy(folder: Path) -> Any:
    """Reads a policy of any class."""
    from diffpolicy.edge.resolve import make_policy

    return make_policy(folder, small(2, 3, 3))


def methods() -> list[Mapping[str, bytes]]:
    """The presets."""
    import diffpolicy.edge

    presets = sorted((Path(diffpolicy.edge.__file__).parent / "presets").glob("*.yaml"))
    return [{"method.yaml": path.read_bytes()} for path in presets]


def read_method(folder: Path) -> Any:
    """Reads a training method."""
    from diffpolicy.experiments.method_names import make_method

    return make_method(str(folder / "method.yaml"))


def read_config(folder: Path) -> Any:
    """Reads the options of `train --config`."""
    from diffpolicy.cli import config, train
    from diffpolicy.cli.options import Parser

    command = Parser(prog="diffpolicy train")
    train.add_options(command)
    return config.read_config(argparse.Namespace(config=str(folder / "config.yaml"), words=[]), command)


def decisions() -> list[Mapping[str, bytes]]:
    """An ONNX file with its description."""
    from diffpolicy.edge.training import build
    from diffpolicy.export import export_decision

    with TemporaryDirectory() as folder:
        path = Path(folder) / "decision.onnx"
        export_decision(build("d2sac-ts", small(2, 3, 3)).policy, path)
        return [{name: (Path(folder) / name).read_bytes() for name in ("decision.onnx", "decision.onnx.json")}]


def read_decision(folder: Path) -> Any:
    """Reads an exported decision and decides."""
    import torch

    from diffpolicy.export import ExportedDecision

    decision = ExportedDecision(folder / "decision.onnx")
    free = {n for i in decision.description["inputs"] for n in i["shape"] if isinstance(n, str)}
    inputs = {
        i["name"]: torch.zeros([1 if n in free else n for n in i["shape"]], dtype=getattr(torch, i["dtype"]))
        for i in decision.description["inputs"]
    }
    return decision(**inputs)


def checkpoints() -> list[Mapping[str, bytes]]:
    """A checkpoint of one episode."""
    from diffpolicy.edge.training import build
    from diffpolicy.training.fit import fit

    with TemporaryDirectory() as folder:
        fit(build("dqn-ts", small(2, 3, 3)), episodes=1, out=folder)
        return [{"checkpoint.ckpt": (Path(folder) / "checkpoint.ckpt").read_bytes()}]


def read_checkpoint(folder: Path) -> Any:
    """Reads a checkpoint up to where a run would go on from it."""
    from diffpolicy.training import checkpoint

    return checkpoint.read(folder / "checkpoint.ckpt")


def read_prices(folder: Path) -> Any:
    """Reads the ML.ENERGY table."""
    from diffpolicy.edge.hardware.schema.published import from_mlenergy

    return from_mlenergy(folder / "table.csv")


def read_requests(folder: Path) -> Any:
    """Reads what a service did, as `advise` does, and tells what is told of it."""
    from diffpolicy.edge.dispatch.request_log import RequestLog

    log = RequestLog.read(folder / "log.csv")
    return log.seats, log.service_s, log.delay_s


def fleets() -> list[Mapping[str, bytes]]:
    """Of a service, with a worker that is ComfyUI, and a scenario."""
    nodes = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 0, "steps": 20, "positive": ["6", 0]}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ""}},
        "9": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
    }
    workers = [
        {"name": "a", "url": "http://10.0.0.1:8001/v1", "slots": 2, "speed": 2.0, "models": ["sd3"]},
        {"url": "http://10.0.0.2:8188", "kind": "comfyui", "workflow": "workflow.json", "nodes": {"prompt": "6"}},
    ]
    sets = [{"workers.json": json.dumps({"workers": workers}).encode(), "workflow.json": json.dumps(nodes).encode()}]
    return [*sets, {**sets[0], "workers.json": json.dumps(measured().to_dict()).encode()}]


def read_fleet(folder: Path) -> Any:
    """Reads a fleet as `advise` does, and as `serve` does where it is no scenario."""
    from diffpolicy.edge.dispatch.advised_fleet import AdvisedFleet
    from diffpolicy.edge.serving.workers_source import WorkersSource

    path = folder / "workers.json"
    fleet = AdvisedFleet.read(path)
    return fleet if b'"servers"' in path.read_bytes() else WorkersSource(str(path)).workers


def read_load(folder: Path) -> Any:
    """Reads a mix of requests and a trace, as `bench-service` does, and draws of the one."""
    from diffpolicy.edge.serving.load.plan import mix_of, plan, read_plan

    drawn = plan(20, rate=2.0, kinds=mix_of(folder / "mix.json"))
    return [ask.body() for ask in (*drawn, *read_plan(folder / "trace.csv"))]


def decision_folder() -> list[Mapping[str, bytes]]:
    """Rows of decisions as `TensorDict.memmap` writes them."""
    import torch
    from tensordict import TensorDict

    rows = TensorDict({"observation": torch.rand(4, 2), "action": torch.arange(4), "reward": torch.rand(4)}, [4])
    with TemporaryDirectory() as folder:
        rows.memmap(folder)
        return [{path.name: path.read_bytes() for path in Path(folder).iterdir()}]


def read_logged(folder: Path) -> Any:
    """Reads decisions to learn from, out of a table or a folder of tensors."""
    from diffpolicy.environments.decision_log import read_decisions

    table = folder / "log.csv"
    rows = read_decisions(table if table.exists() else folder)
    return {key: value.sum() for key, value in rows.items(include_nested=True, leaves_only=True)}


def data_sets() -> list[Mapping[str, bytes]]:
    """Arrays as NumPy and safetensors hold them; each reads the file whose name it has."""
    import io

    import numpy as np
    from safetensors.numpy import save

    arrays: dict[str, Any] = {
        "observation": np.ones((5, 3), np.float32),
        "action": np.arange(5) % 3,
        "reward": np.ones(5),
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return [{"data.npz": file.getvalue(), "data.safetensors": save(arrays)}]


def read_data_set(folder: Path) -> Any:
    """Reads both files of arrays, whichever is damaged."""
    from diffpolicy.environments.data_set import read_data

    return [read_data(folder / name) for name in ("data.npz", "data.safetensors")]


KINDS = json.dumps([{"width": 512, "height": 768, "num_inference_steps": 20 + k, "weight": 0.5} for k in range(3)])
ASKED = "arrival_s,width,height,steps,images,model\n" + "".join(f"{k}.5,512,512,20,1,m\n" for k in range(6))
REQUESTS = "arrival_s,start_s,server,end_s,status,model,width,height,steps,images\n" + "".join(
    f"{k}.5,{k + 1},s{k % 2},{k + 3}.25,{'ok' if k % 5 else 'lost'},m{k % 2},512,768,20,1\n" for k in range(8)
)
COSTS = "arrival_s,server,end_s,cost\n" + "".join(f"{k},a,{k + 2}.5,{k}.75\n" for k in range(6))
LOGGED = "observation_0,observation_1,action,mask_0,mask_1,reward,propensity,terminated,next_observation_0,"
LOGGED += "next_observation_1,next_mask_0,next_mask_1\n"
LOGGED += "".join(f"0.{k},{k},{k % 2},1,1,{k}.5,{'' if k % 3 else 0.5},{k % 2},1,2,1,0\n" for k in range(6))
PRICES = "commit,gpu,model,batch_size,denoising_steps,batch_latency_s,energy_per_image_j\n" + "".join(
    f"c,NVIDIA H100 80GB HBM3,segmind/SSD-1B,{k},25,1.{k},200.5\n" for k in (1, 2, 4)
)
OMNI = "".join(
    f"Request(request_id='{k}', prompt='a \"b\"', width=512, height=512, num_inference_steps=20, timestamp={k}.5)\n"
    for k in range(6)
)
ROWS = "".join(f"{DATES.format(k)},TXT_2_IMG,SUCCEED,3.0,1.0,30.0,X\n" for k in range(8))
NUMBERS = "at,net,n\n" + "".join(f'17000000{k}0.5,"m,{k % 2}",{20 + k}\n' for k in range(8))
CSV = {"arrival_s": "at", "model": "net", "steps": "n"}
READERS = (
    Reader("task file", task_files, {"tasks.csv": "csv"}, read_tasks, 3),
    Reader("workload of a task file", lambda: task_files()[1:], {"tasks.csv": "csv"}, read_workload, 2),
    Reader("trace, alibaba", one("trace", ALIBABA + ROWS), {"trace": "csv"}, read_trace("alibaba", max_broken=0.5), 3),
    Reader(
        "trace, azure",
        one(
            "trace",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(f"{DATES.format(k)}.1234567,3,4\n" for k in range(8)),
        ),
        {"trace": "csv"},
        read_trace("azure", max_broken=1.0),
    ),
    Reader("trace, csv", one("trace", NUMBERS), {"trace": "csv"}, read_trace("csv", columns=CSV, max_broken=0.3), 3),
    Reader(
        "trace, csv of dates",
        one("trace", "at\n" + "".join(f"{DATES.format(k)}.25+01:00\n" for k in range(6))),
        {"trace": "csv"},
        read_trace("csv", columns={"arrival_s": "at"}, unit="datetime", max_broken=0.5),
        2,
    ),
    Reader("trace, vllm-omni", one("trace", OMNI), {"trace": "csv"}, read_trace("vllm_omni", max_broken=0.5), 2),
    Reader("ML.ENERGY table", one("table.csv", PRICES), {"table.csv": "csv"}, read_prices),
    Reader("log of requests", one("log.csv", REQUESTS, COSTS), {"log.csv": "csv"}, read_requests, 3),
    Reader("fleet of a service", fleets, {"workers.json": "json", "workflow.json": "json"}, read_fleet, 2),
    Reader(
        "load of a service",
        lambda: [{"mix.json": KINDS.encode(), "trace.csv": ASKED.encode()}],
        {"mix.json": "json", "trace.csv": "csv"},
        read_load,
        2,
    ),
    Reader("log of decisions", one("log.csv", LOGGED), {"log.csv": "csv"}, read_logged, 2),
    Reader(
        "folder of decisions",
        decision_folder,
        {"meta.json": "json", "observation.memmap": "bytes", "action.memmap": "bytes"},
        read_logged,
    ),
    Reader("data set", data_sets, {"data.npz": "zip", "data.safetensors": "safetensors"}, read_data_set, 2),
    Reader("scenario", scenarios, {"scenario.json": "json"}, read_scenario, 6),
    Reader("server profile", profiles, {"profile.json": "json"}, read_profile, 2),
    Reader("policy", policies, {"policy.json": "json", "policy.safetensors": "safetensors"}, read_policy, 4),
    Reader("method", methods, {"method.yaml": "yaml"}, read_method, 1),
    Reader(
        "train --config",
        one("config.yaml", "episodes: 3\nseed: 1\nscenario: lad-ts\nout: runs/x\ncompile: 'false'\n"),
        {"config.yaml": "yaml"},
        read_config,
    ),
    Reader("decision", decisions, {"decision.onnx.json": "json", "decision.onnx": "bytes"}, read_decision, 2),
    Reader("checkpoint", checkpoints, {"checkpoint.ckpt": "zip"}, read_checkpoint, 2),
)


def cached(reader: Reader) -> Reader:
    """The same reader, whose samples are made once."""
    return replace(reader, samples=cache(reader.samples))
