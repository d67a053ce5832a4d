"""A fleet's live decision as a pure function: the rule's own, whatever the order of servers, and the same exported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffpolicy.cli.main import main
from diffpolicy.edge import Scenario, Workload
from diffpolicy.edge.env.env import OffloadingEnv
from diffpolicy.edge.pricing.beginning import begun
from diffpolicy.edge.pricing.decision import _by_pairs, _by_sorting
from diffpolicy.edge.pricing.law import LATENTS
from diffpolicy.edge.pricing.policy import FleetPolicy
from diffpolicy.edge.pricing.slot import costs_of, tasks_of
from diffpolicy.edge.scenario.availability import Availability
from diffpolicy.edge.scenario.scenario import Server
from diffpolicy.errors import InputError
from diffpolicy.policies.recurrent import with_recurrent_state

SLOTS = 6


def small(*, down: bool) -> Scenario:
    """Five servers, one of them perhaps down for a while, and five stations."""
    rng = np.random.default_rng(5)
    servers = [Server(float(f), float(v)) for f, v in zip(rng.uniform(3, 9, 5), rng.uniform(400, 500, 5), strict=True)]
    if down:
        servers[2] = replace(servers[2], availability=Availability(down_s=((1.0, 4.0),)))
    law = Workload((1, 7), (2.0, 5.0), (0.2,) * 7, (3, 9, 14, 1, 8, 12, 5), (0.8,) * 7)
    return Scenario(1.0, tuple(servers), slots=SLOTS, workload=law)


def live(candidates: int | None = None) -> FleetPolicy:
    """The bundled policy, with candidates or without."""
    policy = FleetPolicy.pretrained("live")
    policy.rule.candidates = candidates
    return policy


def drawn(decision, rows: int, servers: int, seed: int = 3) -> dict[str, torch.Tensor]:
    """Inputs in double precision."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {i.name: i.random(rows, generator, servers=servers) for i in decision.inputs}
    return {n: x.double() if x.is_floating_point() else x for n, x in inputs.items()}


def decide(decision, inputs):
    with torch.no_grad():
        return dict(zip((o.name for o in decision.outputs), decision(*inputs.values()), strict=True))


@pytest.mark.parametrize(("down", "gated"), [(False, False), (True, False), (False, True)])
def test_the_first_task_of_a_slot_goes_where_the_rule_sends_it(down, gated) -> None:
    scenario = small(down=down)
    policy = (FleetPolicy(gated=True) if gated else live()).double().for_scenario(scenario)
    decision = policy.decision()
    env = with_recurrent_state(OffloadingEnv(scenario, [4], information="live", dtype=torch.float64), policy)
    root = env.reset()
    seen = set()
    for _ in range(SLOTS):
        tasks, remembered = tasks_of(root), root["fleet", "latent"]
        state = begun(root, policy.rule.memory.of(root), tasks, policy.rule.told, policy.coefficients())
        valid = root["agents", "valid"]
        first = root["agents", "arrival"].flatten(1).masked_fill(~valid.flatten(1), 10**6).argmin(-1)
        delay, service = (x.flatten(1, 2)[torch.arange(4), first] for x in costs_of(tasks, root))
        x, scalar = state.servers, torch.ones(4, dtype=torch.float64)
        columns = [x.load, x.waiting, x.capacity, x.tasks, x.work]
        step_s = torch.tensor([policy.rule.told.step_s], dtype=torch.float64)
        up = root["servers", "up"]
        action, _, price, latent = decision(*columns, remembered, delay, service, 0 * scalar, scalar, step_s, up)
        renewed = state.prices(torch.ones(4, 1, dtype=torch.float64), service)
        assert torch.allclose(price[up], renewed[up], rtol=1e-9)
        assert torch.allclose(latent[up], state.latent[up], rtol=1e-9, atol=1e-12)
        root = policy(root)
        assert torch.equal(action, root["agents", "action"].flatten(1)[torch.arange(4), first])
        seen |= set(action.tolist())
        root = env.step_mdp(env.step(root))
    assert len(seen) > 1


def test_servers_may_stand_in_any_order() -> None:
    decision = live().double().decision()
    inputs = drawn(decision, 50, 9)
    turn = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    of_servers = {i.name for i in decision.inputs if "servers" in i.shape}
    turned = {n: x[:, turn].contiguous() if n in of_servers else x for n, x in inputs.items()}
    ours, theirs = decide(decision, inputs), decide(decision, turned)
    assert torch.equal(ours["action"], turn[theirs["action"]])
    for name in ("score_s", "price", "next_latent"):
        assert torch.allclose(ours[name][:, turn], theirs[name], rtol=1e-9)


def test_equal_servers_have_equal_prices_and_nobody_goes_to_one_that_is_down() -> None:
    decision = live().double().decision()
    inputs = drawn(decision, 30, 6)
    for spec in decision.inputs:
        if "servers" in spec.shape and spec.dtype == "float32":
            inputs[spec.name] = inputs[spec.name][:, :1].expand_as(inputs[spec.name]).contiguous()
    outputs = decide(decision, inputs)
    same = outputs["price"][:, :1].expand(-1, 6)
    assert torch.allclose(outputs["price"][inputs["up"]], same[inputs["up"]], rtol=1e-9)
    assert inputs["up"].gather(-1, outputs["action"].unsqueeze(-1)).all()
    assert torch.equal(outputs["score_s"].isinf(), ~inputs["up"])


def test_ranks_are_the_same_by_pairs_and_by_sorting_and_equals_share_one() -> None:
    x = torch.randint(0, 6, (4, 2, 20), generator=torch.Generator().manual_seed(0)).double()
    x[0, 0, 3:5] = torch.inf
    below = (x.unsqueeze(-1) > x.unsqueeze(-2)).sum(-1).double()
    assert torch.equal(_by_pairs(x), below)
    assert torch.equal(_by_sorting(x), below)


def test_all_servers_as_candidates_are_all_servers() -> None:
    every, some = live().double().decision(), live(7).double().decision()
    inputs = {**drawn(every, 40, 7), "up": torch.ones(40, 7, dtype=torch.bool)}
    of = torch.rand(40, 7, generator=torch.Generator().manual_seed(1)).argsort(-1)
    known = {
        **inputs,
        **{n: inputs[n].gather(-1, of) for n in ("delay_s", "service_s")},
        "candidates": of,
        "servers_up": torch.full((40,), 7.0, dtype=torch.float64),
        "fleet_capacity_gcycles_per_s": inputs["capacity_gcycles_per_s"].sum(-1),
        "mean_tasks": inputs["tasks"].mean(-1),
        "mean_work_gcycles": inputs["work_gcycles"].mean(-1),
        "fleet_load_gcycles": inputs["load_gcycles"].sum(-1),
    }
    ours = decide(every, inputs)
    theirs = decide(some, {i.name: known[i.name] for i in some.inputs})
    assert torch.equal(ours["action"], theirs["action"])
    assert torch.allclose(ours["price"].gather(-1, of), theirs["price"], rtol=1e-9)


def test_servers_that_are_no_candidates_are_not_computed_on() -> None:
    decision = live(3).double().decision()
    inputs = drawn(decision, 20, 11)
    others = torch.ones(20, 11, dtype=torch.bool).scatter(-1, inputs["candidates"], False)
    poisoned = dict(inputs)
    for spec in decision.inputs:
        if "servers" in spec.shape:
            x = inputs[spec.name].clone()
            x[others] = torch.nan
            poisoned[spec.name] = x
    ours, theirs = decide(decision, inputs), decide(decision, poisoned)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert ours["price"].shape == (20, 3)


def agree(policy, path, sizes) -> None:
    """The file's outputs are the decision's, on inputs that the export was not checked on."""
    from diffpolicy.export import ExportedDecision

    decision, exported = policy.decision(), ExportedDecision(path)
    for rows, servers in sizes:
        inputs = {n: x.float() if x.is_floating_point() else x for n, x in drawn(decision, rows, servers, 9).items()}
        ours, theirs = decide(decision, inputs), exported(**inputs)
        assert ours.keys() == theirs.keys()
        assert torch.equal(ours["action"], theirs["action"])
        for name in ("score_s", "price", "next_latent"):
            assert torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5), name


def served(path, folder, *, fits) -> None:
    """A dispatcher that runs the file sends requests where it does with the policy itself, and remembers as it does."""
    from diffpolicy.edge.dispatch import Moment
    from diffpolicy.edge.serving.exported import exported_choice
    from diffpolicy.edge.serving.learned import LearnedChoice

    if not fits:
        with pytest.raises(InputError, match="chooses among candidates"):
            exported_choice(path, 4)
        return
    rng = np.random.default_rng(0)
    ours, theirs = exported_choice(path, 4), LearnedChoice(str(folder), 4)
    for k in range(120):
        row = rng.uniform(0.5, 5) * np.array([4.0, 1.0, 2.0, 8.0])
        starts = rng.uniform(0, 8, 4) * (rng.random(4) < 0.8)
        moment = Moment.of(service_s=row[None], wait_s=[0.0], starts_s=starts)
        assert ours(moment, moment.runs[0]) == theirs(moment, moment.runs[0]), k
    ends = rng.uniform(0, 8, 5)  # a worker more, one that may not be chosen
    moment = Moment.of(service_s=[[np.inf, 1.0, 2.0, 2.0, 1.0]], wait_s=[0.0], starts_s=ends)
    assert moment.runs[0, ours(moment, moment.runs[0])]
    ours._memory = replace(ours._memory, latent=np.full((5, LATENTS), np.nan))
    ends = np.where(moment.runs[0], moment.service_s[0] + ends, np.inf)
    assert ours(moment, moment.runs[0]) == ends.argmin()
    assert ours._memory is None


SIZES = ((1, 1), (1, 20), (5, 3), (2, 300))


@pytest.mark.parametrize("candidates", [None, 4])
def test_an_onnx_file_decides_as_the_policy_in_fleets_of_any_size(candidates, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from diffpolicy.export import ExportedDecision, export_decision

    policy = live(candidates)
    assert export_decision(policy, tmp_path / "live.onnx").difference <= 1e-5
    agree(policy, tmp_path / "live.onnx", SIZES)
    policy.save(tmp_path / "policy")
    served(tmp_path / "live.onnx", tmp_path / "policy", fits=candidates is None)
    exported = ExportedDecision(tmp_path / "live.onnx")
    inputs = {i.name: i.random(2, torch.Generator().manual_seed(0), servers=6) for i in policy.decision().inputs}
    for name in ("waiting", "latent", "delay_s", "turn"):
        wrong = inputs[name].clone()
        at = [1, int(inputs["candidates"][1, 0]) if candidates and name in ("waiting", "latent") else 0, 0][
            : wrong.ndim
        ]
        wrong[tuple(at)] = torch.nan
        action = exported._run(list({**inputs, name: wrong}.values()))[0]
        assert (int(action[0]) >= 0, int(action[1])) == (True, -1)
        with pytest.raises(InputError, match=rf"decision's {name} holds nan at .*, not finite in float32"):
            exported(**{**inputs, name: wrong})
    with pytest.raises(InputError, match=r"decision's waiting must be float32 \[2, 6\], got float32 \[2, 5\]"):
        exported(**{**inputs, "waiting": inputs["waiting"][:, :5]})
    with pytest.raises(InputError, match=rf"latent must be float32 \[2, 6, {LATENTS}\], got float64"):
        exported(**{**inputs, "latent": inputs["latent"].double()})


@pytest.mark.parametrize("candidates", [None, 4])
def test_a_raw_graph_refuses_an_input_of_one_row_or_one_server_beside_others_of_more(candidates, tmp_path) -> None:
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from diffpolicy.export import export_decision

    policy = live(candidates)
    path = export_decision(policy, tmp_path / "live.onnx").path
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    specs = {i.name: i for i in policy.decision().inputs}
    whole = {name: i.random(3, torch.Generator().manual_seed(0), servers=6).numpy() for name, i in specs.items()}
    session.run(None, whole)
    spread = []
    for name, spec in specs.items():
        for size in ("rows", "servers"):
            if size in spec.shape:
                try:
                    session.run(None, {**whole, name: whole[name].take([0], spec.shape.index(size))})
                    spread.append((name, size))
                except Exception as error:
                    assert "ONNXRuntimeError" in str(error)  # noqa: PT017 (all that spread are told at once)
    assert spread == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("candidates", [None, 4])
def test_an_aotinductor_package_does_too(candidates, tmp_path) -> None:
    from diffpolicy.export import export_decision

    policy = live(candidates)
    export_decision(policy, tmp_path / "live.pt2", "aoti")
    agree(policy, tmp_path / "live.pt2", SIZES)


def test_the_command_exports_a_bundled_policy_and_a_folder(tmp_path, capsys) -> None:
    pytest.importorskip("onnxscript")
    main(["export", "pretrained:live", "--out", str(tmp_path / "a.onnx"), "--json"])
    assert json.loads(capsys.readouterr().out)["largest_difference"] <= 1e-5
    description = json.loads((tmp_path / "a.onnx.json").read_text())
    assert [o["name"] for o in description["outputs"]] == ["action", "score_s", "price", "next_latent"]
    assert description["inputs"][5]["shape"] == ["rows", "servers", LATENTS]
    FleetPolicy(information="live", candidates=3, hidden=8).save(tmp_path / "policy")
    main(["export", str(tmp_path / "policy"), "--out", str(tmp_path / "b.onnx")])
    names = [i["name"] for i in json.loads((tmp_path / "b.onnx.json").read_text())["inputs"]]
    assert "candidates" in names
    assert "up" not in names


def test_a_stale_policy_is_refused_in_one_sentence(tmp_path, capsys) -> None:
    with pytest.raises(InputError, match="only a live fleet policy decides task by task, got one of stale"):
        FleetPolicy(information="stale").decision()
    code = main(["export", "pretrained:stale", "--out", str(tmp_path / "x.onnx")])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code
    assert len(lines) == 1
    assert "pretrained:stale" in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_bundled_policy_loads_where_nobody_imported_its_class_and_needs_no_numba_for_it(tmp_path):
    FleetPolicy.pretrained("live").save(tmp_path / "live")
    code = (
        "import sys; from diffpolicy.policies import SavedPolicy; print(type(SavedPolicy.load(sys.argv[1])).__name__); "
        "import diffpolicy.edge as e; e.FleetPolicy.pretrained('live'); print('numba' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "live")], capture_output=True, text=True, check=False
    )
    assert (told.stdout.split(), told.returncode) == (["FleetPolicy", "False"], 0)
