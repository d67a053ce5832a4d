"""`diffpolicy train-fleet` and bundled policies on the command line."""

from __future__ import annotations

import json

from diffpolicy.cli.main import main


def test_train_fleet_writes_a_policy_that_evaluates(tmp_path, capsys, few_fleets) -> None:
    out = tmp_path / "live"
    assert main(["train-fleet", "live", "--out", str(out), "--rounds", "1", "--generations", "1"]) == 0
    assert json.loads((out / "policy.json").read_text())["trained"]["generations"] == 1
    capsys.readouterr()
    small = ["--stations", "3", "--tasks", "5", "--slots", "3", "--episodes", "2", "--json"]
    assert main(["evaluate", "opt-ts", "price", "pretrained:stale", "pretrained:live", str(out), *small]) == 0
    found = json.loads(capsys.readouterr().out)["policies"]
    assert list(found) == ["opt-ts", "price", "pretrained:stale", "pretrained:live", str(out)]


def test_unknown_names_are_refused(capsys) -> None:
    assert main(["evaluate", "pretrained:none", "--episodes", "1"]) == 2
    assert "pretrained:none" in capsys.readouterr().err


def test_an_objective_is_recorded_and_an_unknown_one_refused(tmp_path, capsys, few_fleets) -> None:
    short = ["--rounds", "1", "--generations", "1"]
    assert main(["train-fleet", "price", "--out", str(tmp_path / "a"), "--objective", "slowdown", *short]) == 0
    trained = json.loads((tmp_path / "a" / "policy.json").read_text())["trained"]
    assert trained["objective"] == "slowdown"
    assert "--objective slowdown" in trained["command"]
    capsys.readouterr()
    assert main(["train-fleet", "price", "--out", str(tmp_path / "b"), "--objective", "fast", *short]) == 2
    assert "'fast'" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
