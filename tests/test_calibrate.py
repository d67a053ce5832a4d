"""From profiles to a scenario: times, speeds, load, and what is refused."""

import json

import numpy as np
import pytest

from diffpolicy.cli.main import main
from diffpolicy.edge import OffloadingEnv, Scenario, evaluate
from diffpolicy.edge.hardware.calibration import batch_gain, calibrate, service_of
from diffpolicy.edge.hardware.schema.records import (
    ColdStart,
    Fit,
    ModelInfo,
    Point,
    ServerInfo,
    SizeFit,
    Software,
    Source,
    Spread,
)
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.errors import InputError


def made(name="fast", speed=1.0, ok=True, sizes=((64, 64), (128, 128)), batches=(1, 2, 4)):
    """A profile whose law is known: 0.2 + steps x pixels / 10^5 + 0.1, batches 10 % cheaper an image."""
    fits, points = [], []
    for width, height in sizes:
        for batch in batches:
            whole = batch * (1.0 if batch == 1 else 0.9) / speed
            step_s = width * height / 1e5 * whole
            fits.append(SizeFit(width, height, batch, step_s, 0.1 * whole))
            for steps in (4, 20):
                total = 0.2 / speed + steps * step_s + 0.1 * whole
                points.append(Point(width, height, steps, batch, n=1, warmup=0, latency_s=Spread.of([total])))
    return ServerProfile(
        ServerInfo(name, "cpu", 1),
        Software(),
        ModelInfo("tiny", "random"),
        ColdStart(build_s=1.0, load_s=2.0),
        tuple(points),
        Fit(0.2 / speed, tuple(fits), r2=0.99 if ok else 0.5, scatter_sigma=0.05, ok=ok),
        Source(),
    )


def test_a_calibrated_server_takes_what_the_profile_says():
    profile = made()
    service = service_of(profile)
    for width, height, steps in ((64, 64, 4), (128, 128, 20), (96, 96, 10)):
        size = width * height / 1e6
        got = service.seconds("any", np.array([size]), np.array([float(steps)]), np.array([1.0]))[0]
        assert got == pytest.approx(profile.service_s(width, height, steps), rel=1e-9)
    assert batch_gain(profile) == pytest.approx((1.0, 0.9, (1.8 + 3.6) / 2 / 3, 0.9))
    assert (service.switch_s, service.cold_s, service.scatter, service.joins) == (2.0, 0.0, 0.05, False)
    assert service_of(profile, cold=True).cold_s == 2.0


def test_work_is_reference_seconds_and_the_load_is_what_was_asked():
    scenario = calibrate([made(), made("slow", 0.5)], load=0.6, slots=30)
    assert [s.capacity_gcycles_per_s for s in scenario.servers] == pytest.approx([1.0, 0.5])
    assert scenario.load_factor() == pytest.approx(0.6)
    assert scenario.stations == (None,)
    kinds = {(k.width, k.steps): k.work_gcycles for k in scenario.workload.mix}
    assert kinds[64, 4] == pytest.approx(made().service_s(64, 64, 4))
    assert Scenario.from_dict(json.loads(json.dumps(scenario.to_dict()))) == scenario


def test_a_calibrated_scenario_plays_at_its_load():
    scenario = calibrate([made(), made("slow", 0.5)], load=0.6, slots=400)
    result = evaluate(["opt-ts", "random"], scenario, episodes=4)
    assert result.load == pytest.approx(0.6)
    assert result.results["random"].ratio > 1
    env = OffloadingEnv(scenario, [8], information="live")
    td = env.rollout(399)
    offered = float(td["agents", "work_gcycles"].sum()) / 8
    drawn = [scenario.workload.draw(0, env.source.stream, k, 400, 1) for k in range(8)]
    seconds = np.mean([r.arrival_s[-1] - r.arrival_s[0] for r in drawn])
    assert offered / seconds / scenario.capacity_gcycles_per_s == pytest.approx(0.6, rel=0.1)


def test_profiles_that_share_no_point_need_a_mix(tmp_path, capsys):
    other = made("other", sizes=((256, 256),))
    with pytest.raises(InputError, match=r"profiles fast and other were measured at no size .* such as --mix"):
        calibrate([made(), made("slow", 0.5), other])
    paths = []
    for profile in (made(), other):
        paths.append(str(tmp_path / f"{profile.name}.json"))
        profile.save(paths[-1])
    out = tmp_path / "s.json"
    assert main(["calibrate", *paths, "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()
    assert main(["calibrate", *paths, "--out", str(out), "--mix", "128:20,96x64:4"]) == 0
    kinds = Scenario.load(out).workload.mix
    assert [(k.width, k.height, k.steps) for k in kinds] == [(128, 128, 20), (96, 64, 4)]
    assert kinds[0].work_gcycles == pytest.approx(made().service_s(128, 128, 20))


def test_poor_fits_are_refused_unless_they_are_wanted(tmp_path, capsys):
    with pytest.raises(InputError, match="profile fast fits poorly"):
        calibrate([made(ok=False)])
    assert calibrate([made(ok=False)], accept_poor_fit=True).measured
    path, out = tmp_path / "p.json", tmp_path / "s.json"
    made(ok=False).save(path)
    assert main(["calibrate", str(path), "--out", str(out)]) == 2
    assert "--accept-poor-fit" in capsys.readouterr().err
    assert not out.exists()


def test_the_command_writes_a_scenario_that_evaluate_and_replay_take(tmp_path, capsys):
    paths = []
    for profile in (made(), made("slow", 0.5)):
        paths.append(str(tmp_path / f"{profile.name}.json"))
        profile.save(paths[-1])
    out = str(tmp_path / "fleet.json")
    options = ["--load", "0.7", "--slots", "20", "--mtbf", "500", "--mttr", "20", "--batching", "--json"]
    assert main(["calibrate", *paths, paths[0], "--out", out, *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["load"] == pytest.approx(0.7)
    assert told["capacity"] == pytest.approx([1.0, 0.5, 1.0])
    fleet = Scenario.load(out)
    assert fleet.servers[2].service.joins
    assert fleet.servers[0].availability.mtbf_s == 500
    assert main(["evaluate", "opt-ts", "--scenario", out, "--episodes", "2"]) == 0
    tasks = tmp_path / "tasks.csv"
    tasks.write_text("arrival_s,origin,input_mbit,result_mbit,gcycles_per_step,steps\n0,,0,0,0.5,10\n1,,0,0,0.5,10\n")
    capsys.readouterr()
    assert main(["replay", "--scenario", out, "--tasks", str(tasks), "--policy", "opt-ts", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--load", "0"], "--load: must be a finite number above 0"),
        (["--mtbf", "5"], "--mtbf and --mttr must be given together"),
        (["--mix", "64"], "--mix must be sizes and steps such as 512:20,768x1024:30, got '64'"),
        (["--mix", "64:4,x:4"], "--mix must be sizes"),
        (["--mix", "64:few"], "steps of --mix must be whole numbers"),
        (["--mix", "64:0"], "steps must be at least 1, got 0"),
        ([], "neither shipped"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(tmp_path, capsys, options, words):
    path = tmp_path / "p.json"
    made().save(path)
    source = str(path) if options else "nothing-like-it"
    try:
        status = main(["calibrate", source, "--out", str(tmp_path / "s.json"), *options])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize("name", ["dedgeai", "gpu-mix"])
def test_built_in_scenarios_load_at_their_load(name):
    scenario = Scenario.load(name)
    assert scenario.load_factor() == pytest.approx(0.8)
    assert len({s.name for s in scenario.servers}) == len(scenario.servers)


def test_dedgeai_serves_an_image_in_the_papers_time():
    scenario = Scenario.load("dedgeai")
    kind = scenario.workload.mix[0]
    assert [kind.work_gcycles / s.capacity_gcycles_per_s for s in scenario.servers] == pytest.approx([18.3] * 5)
