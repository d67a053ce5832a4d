"""Works in proportion to inputs, and FDEdge's single master, whose rules stand where its paper and our notes say."""

import json

import numpy as np
import pytest
import torch

from diffpolicy.edge import OffloadingEnv, OffloadingProblem, Scenario, SizedWorkload, Stream
from diffpolicy.errors import InputError
from diffpolicy.experiments import evaluate


def workload(**changes):
    given = {"result_mbit": (0.0, 0.5, 0.0), "gcycles_per_mbit": (0.1, 0.2, 0.3), **changes}
    return SizedWorkload((1, 3), (10.0, 40.0), **given)


def test_work_is_in_proportion_to_the_input():
    drawn = workload().draw(3, Stream.TRAINING, episode=2, slot=5, stations=400)
    assert np.array_equal(drawn.work_gcycles, drawn.input_mbit * [0.1, 0.2, 0.3])
    assert drawn.result_mbit[7].tolist() == [0.0, 0.5, 0.0]
    there = np.arange(3) < drawn.counts[:, None]
    assert (drawn.work_gcycles * there).sum(-1).mean() == pytest.approx(workload().mean_work_gcycles(), rel=0.1)


def test_a_file_of_it_is_the_same_scenario():
    scenario = Scenario.load("fdedge")
    again = Scenario.from_dict(json.loads(json.dumps(scenario.to_dict())))
    assert again.digest() == scenario.digest()
    assert again.workload == scenario.workload


def test_mistakes_are_named():
    with pytest.raises(InputError, match="gcycles_per_mbit"):
        workload(gcycles_per_mbit=(0.1, -0.2, 0.3))
    with pytest.raises(InputError, match="fewer than the 3 tasks"):
        workload(gcycles_per_mbit=(0.1,))
    with pytest.raises(InputError, match="'by-size', whose tasks and steps cannot be overridden"):
        Scenario.load("fdedge").override(tasks=5)
    with pytest.raises(InputError, match="workload lacks the key"):
        Scenario.from_dict({**Scenario.load("fdedge").to_dict(), "workload": {"kind": "by-size"}})


def test_the_master_is_the_published_one():
    scenario = Scenario.load("fdedge")
    assert (len(scenario.servers), scenario.slots, scenario.stations) == (10, 99, (None,))
    assert scenario.capacity_gcycles_per_s == 326
    assert scenario.load_factor() == pytest.approx(0.76, abs=0.02)
    td = OffloadingEnv(scenario, [2], seed=1).reset()["agents"]
    valid = td["valid"]
    per_mbit = td["work_gcycles"][valid] / td["observation"][..., 0][valid]
    assert ((per_mbit > 0.1023) & (per_mbit < 0.3073)).all()
    assert torch.equal(td["observation"][..., 1][valid], td["work_gcycles"][valid])


def test_its_rules_stand_where_they_are_known_to():
    names = ["opt-ts", "least-work-own", "weighted-round-robin"]
    results = evaluate(OffloadingProblem("fdedge"), names, episodes=2).results
    means = {name: row.costs.mean for name, row in results.items()}
    assert means["opt-ts"] == pytest.approx(0.86, abs=0.15)
    assert means["opt-ts"] <= means["least-work-own"] < means["weighted-round-robin"]
