"""Held requests through the commands: `evaluate`, `replay` and `compare` with `--binding free`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffpolicy.cli.main import main
from diffpolicy.edge import OffloadingEnv, Scenario, Server, TaskList, make_policy
from diffpolicy.edge.dispatch import Binding, Held, Moment, ShortestFirst, simulate
from diffpolicy.edge.dispatch.holding import Holding
from diffpolicy.edge.dispatch.of_scenario import arrivals_of
from diffpolicy.edge.dispatch.policy_choice import PolicyChoice
from diffpolicy.edge.dispatch.problem import HeldOffloadingProblem
from diffpolicy.edge.dispatch.replay import replay_held
from diffpolicy.edge.scenario.availability import Availability
from diffpolicy.edge.scenario.service_times import ModelTimes, ServerService
from diffpolicy.errors import InputError
from diffpolicy.evaluation.evaluating import evaluate

COLUMNS = "arrival_s,origin,input_mbit,result_mbit,gcycles_per_step,steps"


def write_tasks(folder: Path, *rows: str) -> Path:
    """A task file."""
    path = folder / "tasks.csv"
    path.write_text("\n".join([COLUMNS, *rows]) + "\n")
    return path


def test_a_file_is_held_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    """One server of 1 Gcycle/s: 9 s runs; of 5 s and 2 s that wait, the shorter goes first; links add 0.1 s a Mbit."""
    scenario = Scenario(1.0, (Server(1.0, 10.0),))
    file = write_tasks(tmp_path, "0,0,1,1,1,9", "1,0,1,1,1,5", "2,,1,1,1,2")
    tasks = TaskList.read(file, scenario)
    rule = make_policy("opt-ts", scenario)
    held = replay_held(scenario, tasks, rule, "shortest-first")
    assert held.delay_s == pytest.approx([9.1, 15.1, 9.2])
    assert (held.most_passes, held.longest_refused_s) == (1, 0.0)
    assert replay_held(scenario, tasks, rule, "first-come").delay_s == pytest.approx([9.1, 13.1, 14.2])


def test_a_policy_is_shown_the_free_servers_and_the_request() -> None:
    """Asked about each request alone, the greedy rule chooses what the dispatcher chooses for itself."""
    scenario = Scenario.load("gpu-mix")
    coming = arrivals_of(scenario).arrivals.until(120)
    env = OffloadingEnv(scenario, [1], information="live", dtype=torch.float64)
    whole = arrivals_of(scenario)
    choice = PolicyChoice(env, make_policy("opt-ts", scenario), whole)
    alone = simulate(coming, Held(ShortestFirst(), cap=6))
    asked = simulate(coming, Held(ShortestFirst(), cap=6, choose=choice))
    assert np.array_equal(alone.server, asked.server)
    assert choice.elsewhere == 0


@pytest.mark.parametrize("name", ["random", "least-work", "power-of-two", "price", "round-robin"])
def test_every_kind_of_policy_chooses_among_free_servers(name: str) -> None:
    scenario = Scenario.load("lad-ts").override(tasks=3, stations=3, slots=3)
    problem = HeldOffloadingProblem(scenario)
    result = evaluate(problem, [name], episodes=1)
    assert result.baseline == "opt-ts on arrival"
    assert result.results[name].costs.count == result.played[result.baseline].cost.size


def test_servers_that_fail_are_held_for_while_they_are_up() -> None:
    several = replace(Scenario.load("gpu-mix"), slots=40)
    mostly = Availability(mtbf_s=15.0, mttr_s=10.0)
    failing = replace(several, servers=tuple(replace(x, availability=mostly) for x in several.servers))
    result = evaluate(HeldOffloadingProblem(failing), ["opt-ts", "least-work"], episodes=1)
    spared = HeldOffloadingProblem(several).play(make_policy("opt-ts", several), 1, 0)
    assert spared is not None
    assert result.results["opt-ts"].costs.mean > spared.cost.mean()
    assert result.played["least-work"].cost.size == result.played["opt-ts on arrival"].cost.size == 40


def test_holding_ends_where_a_server_joins_or_an_order_is_unknown() -> None:
    joining = ServerService({"*": ModelTimes(0.0, (1.0,), (1.0,), (0.0,))}, batch=(1.0, 0.7), joins=True)
    with pytest.raises(InputError, match="batches like requests"):
        HeldOffloadingProblem(Scenario(1.0, (Server(1.0, 10.0, service=joining),)))
    with pytest.raises(InputError, match="order 'nearest' is neither one of"):
        HeldOffloadingProblem("lad-ts", "nearest")


def test_evaluate_prints_how_it_held(capsys: pytest.CaptureFixture[str]) -> None:
    asked = "evaluate opt-ts --scenario gpu-mix --binding free --order shortest-first:cap=3 --eval-episodes 2 --json"
    assert main(asked.split()) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["binding"], told["order"]) == ("free", "shortest-first:cap=3")
    row = told["policies"]["opt-ts"]
    assert row["most_passes"] == 3
    assert row["ratio"] < 1


def test_dead_time_is_told_and_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three tasks of 5 s one after the other, each of which begins 0.2 s after its binding: 4 % of 15 s."""
    scenario = Scenario(1.0, (Server(1.0, 10.0),), name="one")
    (tmp_path / "one.json").write_text(json.dumps(scenario.to_dict()))
    file = write_tasks(tmp_path, *["0,0,1,1,1,5"] * 3)
    asked = f"replay --scenario {tmp_path / 'one.json'} --task-file {file} --policy opt-ts --binding free"
    assert main([*asked.split(), "--dead-time", "0.2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dead_s"], told["lead_s"], told["split"]) == (0.2, 0.0, False)
    assert told["dead_share"] == pytest.approx(0.04)
    assert "under opt-ts dead time is 4.0% of the service time" in told["warnings"][0]
    assert main([*asked.split(), "--dead-time", "0.01"]) == 0
    shown = capsys.readouterr().out
    assert "dead time 0.2%" in shown
    assert "warning" not in shown
    # sent as much before the end, only the first has any
    assert main([*asked.split(), "--dead-time", "0.2", "--lead", "0.2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dead_share"] == pytest.approx(0.2 / 15)
    assert "warnings" not in told


IMAGES = "arrival_s,origin,input_mbit,result_mbit,gcycles_per_step,steps,model,width,height,images"


def one_by_one(batch: tuple[float, ...] = (1.0,)) -> Scenario:
    """Two servers on which an image of 1000 x 1000 takes 1 s a step."""
    service = ServerService({"sd3": ModelTimes(0.0, (1.0,), (1.0,), (0.0,))}, batch=batch)
    return Scenario(1.0, (Server(1.0, 10.0, service=service), Server(1.0, 10.0, service=service)))


def test_a_request_of_several_images_is_sent_image_by_image(tmp_path: Path) -> None:
    """Four images of 2 s take 4 s on two servers rather than 8; one of 3 s goes before all that is left of them."""
    scenario = one_by_one()
    file = tmp_path / "tasks.csv"
    file.write_text("\n".join([IMAGES, "0,,0,0,1,2,sd3,1000,1000,4", "0,,0,0,1,3,sd3,1000,1000,1"]) + "\n")
    tasks = TaskList.read(file, scenario)
    rule = make_policy("opt-ts", scenario)
    whole = replay_held(scenario, tasks, rule, "shortest-first")
    split = replay_held(scenario, tasks, rule, Holding("shortest-first", split=True))
    assert whole.delay_s == pytest.approx([8.0, 3.0])
    assert split.delay_s == pytest.approx([6.0, 3.0])  # of the images one after 3 s, three on the other server
    chosen = replay_held(scenario, tasks, make_policy("least-work", scenario), Holding("shortest-first", split=True))
    assert chosen.delay_s == pytest.approx(split.delay_s)


def test_a_server_with_slots_works_on_as_many_at_once(tmp_path: Path) -> None:
    """Three requests of 4 s on one server with two slots, in which each takes 1.5 times as long: 6, 6 and 12 s."""
    times = {"sd3": ModelTimes(0.0, (1.0,), (1.0,), (0.0,))}
    scenario = Scenario(1.0, (Server(1.0, 10.0, service=ServerService(times, slots=2, together=1.5)),))
    file = tmp_path / "tasks.csv"
    file.write_text("\n".join([IMAGES, *["0,,0,0,1,4,sd3,1000,1000,1"] * 3]) + "\n")
    held = replay_held(scenario, TaskList.read(file, scenario), make_policy("opt-ts", scenario), "first-come")
    assert held.delay_s == pytest.approx([6.0, 6.0, 12.0])
    several = replace(Scenario.load("gpu-mix"), slots=40)
    of = tuple(replace(x, service=replace(x.service, slots=2, together=2.0)) for x in several.servers)  # type: ignore[arg-type]
    result = evaluate(HeldOffloadingProblem(replace(several, servers=of)), ["opt-ts"], episodes=1)
    assert result.results["opt-ts"].ratio is not None
    assert result.results["opt-ts"].ratio < 1.05


def test_images_are_sent_whole_where_nobody_counts_them_or_a_server_batches() -> None:
    with pytest.raises(InputError, match="its requests have no number of images"):
        HeldOffloadingProblem("lad-ts", Holding(split=True))
    with pytest.raises(InputError, match="server 0 makes up to 2 images of a request together"):
        HeldOffloadingProblem(one_by_one((1.0, 0.7)), Holding(split=True))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("evaluate opt-ts --split", "--split works only with --binding free, got --split"),
        ("evaluate opt-ts --lead 0.5", "--lead works only with --binding free, got --lead 0.5"),
        ("evaluate opt-ts --binding free --dead-time -1", "dead time must be at least 0, got -1"),
        ("evaluate opt-ts --order first-come", "--order works only with --binding free, got --order first-come"),
        ("evaluate opt-ts --binding free --order fcfs", "order 'fcfs' is neither one of"),
        ("evaluate random --problem clinic --binding free", "--binding free works only with the offloading problem"),
        ("replay --scenario lad-ts --task-file x.csv --binding free", "--binding free needs --policy"),
    ],
)
def test_a_wrong_binding_is_one_sentence(asked: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked.split()) == 2
    assert says in capsys.readouterr().err


class Whole:
    """A dispatcher, not an order."""

    holds = True

    def begin(self, seed: int) -> None: ...

    def decide(self, moment: Moment) -> Binding | None:
        return Held().decide(moment)


@pytest.mark.parametrize(
    ("asked", "never"),
    [
        ("evaluate opt-ts price", "price"),
        ("evaluate opt-ts --baseline random", "random"),
        ("replay --scenario gpu-mix --task-file x.csv --policy least-work", "least-work"),
        ("compare --methods sac-ts", "sac-ts"),
        ("compare", "the methods that compare trains"),
    ],
)
def test_a_policy_that_would_never_be_asked_is_refused(
    asked: str, never: str, capsys: pytest.CaptureFixture[str]
) -> None:
    order = f"{__name__}:Whole"
    assert main([*asked.split(), "--binding", "free", "--order", order]) == 2
    assert f"--order {order} is a dispatcher that chooses servers itself and would never ask {never}; " in (
        capsys.readouterr().err
    )
    problem = HeldOffloadingProblem(Scenario.load("lad-ts").override(tasks=3, stations=3, slots=3), order)
    evaluate(problem, ["opt-ts"], episodes=1)
    with pytest.raises(InputError, match="would never ask this policy"):
        evaluate(problem, ["random"], episodes=1)


def test_compare_takes_a_binding_and_knows_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = "compare --methods sac-ts --tasks 2 --stations 2 --slots 2 --episodes 2 --eval-episodes 1 --binding free"
    assert main([*asked.split(), "--out", str(tmp_path), "--json", "--processes", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "opt-ts on arrival" in json.dumps(told)
