"""What the benchmarks compare with is the same problem and the same algorithm."""

import multiprocessing
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchrl.envs.utils import ExplorationType

from diffpolicy.diffusion import NoiseSchedule, ddpm
from diffpolicy.edge import OffloadingEnv, Stream
from diffpolicy.edge.training import build
from diffpolicy.policies import BestOf
from toys import small

SCENARIO = small(3, 5, 4)


@pytest.fixture
def one_at_a_time(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import one_at_a_time

    return one_at_a_time


def test_the_obvious_way_plays_the_same_episodes(one_at_a_time):
    training = one_at_a_time.Training(SCENARIO)
    for b, agent in enumerate(training.agents):
        agent.act = lambda s, x, b=b: (b, x)  # everything stays at home
    env = OffloadingEnv(SCENARIO, [1], stream=Stream.TRAINING, dtype=torch.float64)
    root = env.reset()
    for _ in range(SCENARIO.slots):
        valid = root["agents", "valid"][0]
        root["agents", "action"] = torch.arange(3).view(1, 3, 1).expand(1, 3, valid.shape[-1]).contiguous()
        step = env.step(root)
        delays = -step["next", "agents", "reward"][0][valid]
        assert training.play_slot() == pytest.approx(delays.tolist())
        root = env.step_mdp(step)


def test_its_chain_is_the_published_one(one_at_a_time, monkeypatch):
    actor = one_at_a_time.Actor(5, 3)
    s, x = torch.randn(4, 5), torch.randn(4, 3)
    noise = torch.randn(4, 4, 3)
    drawn = iter(noise)
    monkeypatch.setattr(torch, "randn_like", lambda like: next(drawn))
    schedule = NoiseSchedule.named("vp", 5)
    ours = ddpm(lambda y, i: actor.denoiser(y, torch.full((4,), i), s), x, schedule, noise=noise)
    assert torch.allclose(actor(s, x), ours, atol=1e-4)


def test_it_has_as_many_parameters_as_the_preset(one_at_a_time):
    agent = one_at_a_time.Training(SCENARIO).agents[0]
    module = build("lad-ts-released", SCENARIO)
    theirs = sum(p.numel() for p in agent.actor.parameters())
    assert theirs * 3 == sum(p.numel() for p in module.policy.parameters())


def test_it_updates_once_a_slot_and_agent_when_there_is_enough(one_at_a_time, monkeypatch):
    monkeypatch.setattr(one_at_a_time, "START", 10)
    monkeypatch.setattr(one_at_a_time, "BATCH", 4)
    training = one_at_a_time.Training(SCENARIO)
    before = [p.clone() for agent in training.agents for p in agent.actor.parameters()]
    for _ in range(3 * SCENARIO.slots):
        training.play_slot()
    after = [p for agent in training.agents for p in agent.actor.parameters()]
    assert all(len(agent.replay) > 10 for agent in training.agents)
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_contender_that_dies_is_named(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import training

    fork = multiprocessing.get_context("fork")  # one that is spawned imports everything first
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: fork)
    contender = training.Contender("released code", training.released, str(tmp_path))  # an empty folder
    contender.ask()
    with pytest.raises(training.DiedError, match="'released code' ended with exit code 1; what it said is above"):
        contender.answer()
    assert "No module named 'environment_lad'" in capfd.readouterr().err


def test_the_parts_of_a_slot_are_all_timed(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import training

    spent = training.parts("sac-ts", slots=2)
    names = "rollout, transitions, into the replay, out of the replay, losses, backward, Adam, targets"
    assert ", ".join(spent) == names
    assert min(spent.values()) > 0


def test_members_side_by_side_share_the_slots(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import training

    class Steady:
        def ask(self):
            pass

        def answer(self):
            return training.Spent(wall=0.5, cpu=0.25)

    spent = training.rounds_of({"alone": [Steady()], "two": [Steady(), Steady()]}, 3)
    assert spent == {"alone": training.Spent(0.5, 0.25), "two": training.Spent(0.25, 0.125)}


def test_the_curves_of_a_long_run_are_kept_in_blocks(one_at_a_time):
    import curves

    end = {"baseline": "base", "measure": "delay, s"}
    rows = [
        {"method": "mine", "kind": "method", "seed": s, "episode": str(k), "delay_s": str(10 * s + k), **end}
        for s in (0, 1)
        for k in range(1, 26)
    ]
    rows.append({"method": "base", "kind": "heuristic", "seed": "", "episode": "", "delay_s": "7.5412", **end})
    header, *lines = curves.blocks(rows)
    assert header[2:6] == ["first_episode", "last_episode", "delay_s", "seeds"]
    assert [line[:6] for line in lines] == [
        ["mine", "method", "1", "10", "10.50", "2"],
        ["mine", "method", "11", "20", "20.50", "2"],
        ["base", "heuristic", "", "", "7.541", ""],
    ]


def test_the_table_of_methods_has_the_best_and_random_play_at_one_and_nought(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import methods

    env = methods.PairGains(64)
    worst, best = env.range()
    env.reset()
    gains = []
    for seed in range(40):
        torch.manual_seed(seed)
        action = torch.distributions.Categorical(env.allowed.float().expand(64, 3, 4)).sample()
        gains.append(env.gain(action))
    found = torch.cat(gains)
    task = methods.PROBLEMS["pair gains"]
    assert (task.score(worst), task.score(best)) == (0, 1)
    assert float(found.max()) == pytest.approx(best)
    assert task.score(float(found.mean())) == pytest.approx(0, abs=0.05)


def test_rows_of_methods_become_means_with_students_intervals(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import methods

    rows = [["cartpole", "qvpo", str(k), "9", "1", str(score), "2.0"] for k, score in enumerate((0.2, 0.4, 0.6))]
    line = ["cartpole", "qvpo", "qvpo-plain", "3", "0.400", "± 0.497", "2"]  # 4.303 times 0.2 / sqrt(3)
    assert methods.summary([*rows, ["cartpole", "sac", "0", "9", "1", "0.5", "1.0"]]) == [
        line,
        ["cartpole", "sac", "", "1", "0.500", "", "1"],
    ]
    for method in methods.METHODS:
        assert methods.changes_of("pair gains", method)["items"] == "joint"
        taught = methods.changes_of("clinic", method).get("teacher")  # of the students it is a chain that is trained
        assert (taught == "dearest-first") == (method in methods.TAUGHT)


def test_mirror_descent_with_known_values_goes_on_by_the_share_that_its_copy_follows(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import mirror_speed

    pairs = mirror_speed.Pairs.drawn(20)
    assert pairs.allowed.gather(1, pairs.nearest.unsqueeze(1)).all()
    course = mirror_speed.course(pairs, "qdfm", {"tau": 0.05, "reward_scale": 0.1, "beta": 5.0})
    costs = [next(course) for _ in range(42)]
    assert costs[0] == pairs.mean(0)
    assert costs[41] == pytest.approx(pairs.mean(0.5 * (1 + 0.05 * 40)))
    assert costs[0] > costs[1] > costs[41] > pairs.mean(1e6)
    assert pairs.step(0.0, 0.5) > pairs.step(0.4, 0.5) > 0


def test_jobs_share_a_budget_so_that_the_last_of_them_ends_within_it(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import jobs

    five = [jobs.Job((str(k),), float, seconds=100.0, beside=10.0) for k in range(5)]
    assert jobs.share_of_time(five, 5, 1000) == 1.0
    # one after the other on two processes: three of one, each of 10 + 100 p seconds
    assert jobs.share_of_time(five, 2, 180) == pytest.approx(0.5)
    assert jobs.share_of_time(five, 2, 1) == 0.01


CLOCK = [0.0]


def asleep(seconds):
    """Works for so long, as a clock of its own tells the time."""
    CLOCK[0] += seconds
    return seconds


def test_processes_of_benchmarks_end_with_the_one_that_started_them(monkeypatch):
    """Also where that is killed amid a job, when nobody reads a pipe that is closed."""
    benchmarks = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(benchmarks)
    import jobs

    seen, (here, there) = [], jobs.multiprocessing.Pipe()
    here.close()
    monkeypatch.setattr(jobs._signals, "end_with", seen.append)
    jobs._attend(there, 5)
    assert seen == [5]
    spawning = [path for path in benchmarks.glob("*.py") if 'get_context("spawn")' in path.read_text()]
    assert "training.py" in {path.name for path in spawning}
    assert [path.name for path in spawning if "_signals.end_with" not in path.read_text()] == []


def test_jobs_that_are_left_get_what_those_before_had_and_late_ones_nothing(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import jobs

    class Aside:  # in place of a process
        def kill(self):
            pass

    def started():
        here, there = jobs.multiprocessing.Pipe()
        threading.Thread(target=jobs._serve, args=(there,), daemon=True).start()
        return jobs._Process(Aside(), here)

    ready = jobs.wait
    monkeypatch.setattr(jobs, "_started", started)
    # the time is what jobs have worked, so that no other work on the machine moves it
    monkeypatch.setattr(jobs, "time", SimpleNamespace(monotonic=lambda: CLOCK[0]))
    monkeypatch.setattr(jobs, "wait", lambda pipes, timeout: ready(pipes))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)

    five = [jobs.Job((str(k),), asleep, seconds=1.0, beside=0.0) for k in range(5)]
    found = []
    part = jobs.part_given([(1.0, "0.2"), (2.0, "0.38"), (1.0, "")])
    assert part == 0.2
    assert jobs.part_given([(1.0, "")]) is None
    jobs.run_jobs(five, 1, 0.5 / 60, lambda job, got, why: found.append((got, why)), part)  # for two and a half of them
    assert [got for got, _ in found] == [0.2, 0.2, None, None, None]
    assert {why for got, why in found if got is None} == {"no time left"}
    found.clear()
    jobs.run_jobs(five[:1], 1, 0.5 / 60, lambda job, got, why: found.append((got, why)), part)  # alone it has no more
    assert found == [(0.2, "")]


def test_a_policy_whose_critic_chooses_among_draws_is_judged_with_them(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import judging

    class Policy:
        guidance = None

    policy = Policy()
    assert judging.judged_by(policy, chance=False) == ExplorationType.DETERMINISTIC
    assert judging.judged_by(policy, chance=True) == ExplorationType.RANDOM
    policy.guidance = BestOf(torch.nn.Identity(), draws=4)
    assert judging.judged_by(policy, chance=False) == ExplorationType.RANDOM


def test_the_control_of_the_gradient_through_a_chain_learns_by_the_same_without_one(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import problems

    fits = []
    monkeypatch.setattr(problems, "LANES", 1)
    run = problems.fit
    monkeypatch.setattr(problems, "fit", lambda made, **_: fits.append(made) or run(made, episodes=1))
    way = problems.PROBLEMS["split"].ways["pathwise-plain"]
    policy, episodes = way.make(problems.make_problem("split"), 0, 0.0, None)
    assert episodes == 1
    assert (type(policy).__name__, policy.hidden, policy.act) == ("FeedforwardPolicy", [128, 128], "mish")
    assert all(isinstance(made.objective, problems.PathwiseLoss) for made in fits)
    ways = problems.PROBLEMS["split"].ways
    assert ways["pathwise-plain"].seconds == ways["pathwise"].seconds
    fits.clear()
    way.make(problems.make_problem("split"), 0, 0.0, 7)  # as many as the method beside it had
    assert [made.anneal for made in fits] == [7]


def test_an_aim_holds_by_the_mean_over_seeds_or_by_standard_errors_below_it(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import problems

    def rows(problem, measures, beside):
        return [[problem, "d2sac", str(k), "16", "1", "1.5", "1", str(x), beside, ""] for k, x in enumerate(measures)]

    split = problems.summary(rows("split", (1.01, 1.04), "best-unit 2"))
    assert split[0][-4:] == ["1.025", "0.015", "<= 1.03, below best-unit", "yes"]
    assert problems.summary(rows("split", (1.01, 1.04), "best-unit 1.4"))[0][-1] == "no"  # dearer than one unit
    assert problems.summary(rows("gang", (-1.0, -3.0), "greedy 1"))[0][-1] == "no"  # - 2 + 2 x 1 is not below 0
    assert problems.summary(rows("gang", (-2.0, -3.0), "greedy 1"))[0][-1] == "yes"


def test_methods_on_pendulum_are_presets_and_torchrls_own_learns_beside_them(monkeypatch):
    pytest.importorskip("gymnasium")
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import pendulum
    from diffpolicy.experiments import make_method
    from diffpolicy.experiments.changes import changed
    from diffpolicy.policies.heads import BoundedHead

    for name, changes in pendulum.METHODS.items():
        if name != "torchrl-sac":
            assert changed(make_method(name), changes).refuses(BoundedHead(low=(-2.0,), high=(2.0,))) == ""
    learner = pendulum.TorchRLSAC(0)
    learner.start_after = 4
    before = [p.detach().clone() for p in learner.actor.parameters()]
    env = pendulum.make_problem(pendulum.PROBLEM).make_env(1, 0)
    state = env.reset()
    for _ in range(6):
        with torch.no_grad():
            step, state = env.step_and_maybe_reset(learner.actor(state))
        learner.seen(step)
    assert len(learner.replay) == 6
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.actor.parameters(), strict=True))
    rows = [["a", str(k), "1", "9", str(-200 - k), ""] for k in range(2)] + [["b", "0", "1", "9", "-100.0", "-90.0"]]
    assert list(pendulum.summary(rows)) == [
        ["b", "1", "9", "-100", "", "-100", "-90"],
        ["a", "2", "9", "-200", "± 6", "-201", ""],
    ]


def test_students_stand_beside_their_teacher(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import distilling

    rows = [[name, "0", steps, "32", cost, "0.9", us, "900", "10"] for name, steps, cost, us in OF_STUDENTS]
    found = distilling.summary([*rows, ["distill", "1", "1", "32", "0.7", "0.7", "300", "900", "10"]])
    assert [row[:4] for row in found] == [["d2sac", "5", "1", "0.3"], ["distill", "1", "2", "0.6"]]
    assert found[0][-1] == "1.00"
    assert found[1][-4:] == ["0.8000", "250", "900", "2.00"]


OF_STUDENTS = (("distill", "1", "0.5", "200"), ("d2sac", "5", "0.3", "500"))


def test_what_fell_below_its_record_is_told_by_its_row(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import nightly

    def rows(**scores):
        return [{"method": name, "score": str(x)} for name, each in scores.items() for x in each]

    record = nightly.Record("x.csv", ("method",), "score", 0.1, high=True)
    before = rows(a=(0.8, 1.0), b=(0.5,))
    assert nightly.compare(before, rows(a=(0.85,), b=(0.6,), new=(0.0,)), record).held  # the mean of a's two is 0.9
    found = nightly.compare(before, rows(a=(0.9,), b=(0.4,)), record)
    assert (found.held, found.rows, found.worst, found.recorded, found.now) == (False, 2, "b", 0.5, 0.4)
    assert found.loss == pytest.approx(0.2)
    low = nightly.Record("x.csv", ("method",), "score")
    assert nightly.compare(before, before, low).held
    assert not nightly.compare(before, rows(a=(0.9001,)), low).held
    assert not nightly.compare(before, [], low).held  # what compares nothing shows nothing
    for figure in ("nan", "inf", "-inf"):
        assert not nightly.compare(before, rows(a=(0.9,), b=(figure,)), low).held
    for less in (rows(a=(0.9,)), rows(a=(0.9,), b=("",))):  # a quick run has some of the rows
        assert nightly.compare(before, less, low).held
        found = nightly.compare(before, less, low, whole=True)
        assert (found.held, found.worst) == (False, "b")
    same = nightly.Record("x.csv", ("method",), "score", 1e-3, exact=True)
    assert nightly.compare(before, before, same).held
    assert not nightly.compare(before, rows(a=(0.8, 1.0), b=(0.4,)), same).held  # a lower cost has moved all the same
    part = nightly.Record("x.csv", ("method",), "score", part="a")
    assert nightly.compare(before, rows(a=(0.9,)), part, whole=True).held  # rows of other parts are not asked for
    for check in nightly.CHECKS.values():
        assert (nightly.ROOT / check.words.split()[0]).is_file() or check.words.startswith(
            ("-m pytest", "-m diffpolicy")
        )
        for each in check.records:
            assert nightly.figures(nightly.read(nightly.RECORDS / each.file), each)


def test_a_check_that_dies_or_never_ends_is_a_row_of_the_table(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import nightly

    def row(words, minutes=1.0, file="load.csv", figure="mean_delay_s", written=""):
        record = nightly.Record(file, ("tasks", "policy"), figure, written=written)
        (found,) = nightly.run("x", nightly.Check(words, None, minutes, (record,)), quick=False)
        return found[2], found[-1]

    shutil.copy(nightly.RECORDS / "load.csv", tmp_path)
    copy = f"-c __import__('shutil').copy('{tmp_path}/load.csv','{{out}}')"
    assert row(copy)[1] == "yes"
    assert row(copy.replace("{out}", "{out}/other.csv"), written="other.csv")[1] == "yes"
    assert row(copy, written="other.csv") == ("load.csv: nothing to compare", "NO")
    assert row("-c exit(3)") == ("ended with status 3", "NO")
    assert row("-c __import__('time').sleep(60)", minutes=0.001) == ("not done in 0.001 minutes", "NO")
    os.mkfifo(tmp_path / "held")
    end = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    child = f"__import__('subprocess').Popen(['sleep','60'],stdout=open('{tmp_path}/held','w'))"
    row(f"-c {child};exit(0)")
    assert select.select([end], [], [], 10)[0]  # closed, as what the check had started is gone
    os.close(end)
    assert row("-c pass") == ("load.csv: nothing to compare", "NO")
    assert row(copy, figure="gone") == ("load.csv: KeyError: 'gone'", "NO")


def test_the_file_of_a_nightly_run_keeps_the_rows_of_checks_that_are_not_run(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import nightly

    def rows(name, *figures):
        return [[name, "1", "", figure, figure, "2", "yes"] for figure in figures]

    out = tmp_path / "nightly.csv"
    for name, *figures in (("bounds", "1", "2"), ("fuzz", "3"), ("bounds", "4")):
        nightly.write(out, name, rows(name, *figures))
    found = [(row["check"], row["now"]) for row in nightly.read(out)]
    assert found == [("fuzz", "3"), ("bounds", "4")]  # in the order of the checks
    assert all(row["date"] for row in nightly.read(out))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_nightly_run_that_is_asked_to_end_leaves_no_check_behind(number, tmp_path):
    os.mkfifo(tmp_path / "held")
    end = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    child = f"import time; f = open('{tmp_path}/held', 'w'); f.write('x'); f.flush(); time.sleep(60)"
    heard = f"import signal; signal.signal({int(number)}, signal.SIG_DFL); "  # also where the tests run under `nohup`
    script = heard + "import sys, nightly; nightly.CHECKS = {'x': nightly.Check('', None, 1)}; "
    run = f"nightly.run = lambda *_: [[nightly.failure(['-c', {child!r}], 60)]]; sys.argv = ['x']; nightly.main()"
    folder = Path(__file__).parents[1] / "benchmarks"
    process = subprocess.Popen([sys.executable, "-c", script + run], cwd=folder)
    assert select.select([end], [], [], 30)[0]
    assert os.read(end, 1) == b"x"
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert select.select([end], [], [], 10)[0]
    assert os.read(end, 1) == b""  # closed, as the check is gone
    os.close(end)


def test_imports_are_set_beside_torch(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import imports

    found = imports.rows({imports.BESIDE: [2.0, 9.0, 1.0], "import diffpolicy": [1.0, 3.0, 8.0]})
    assert found == [(imports.BESIDE, "2.00", "s", "1.00"), ("import diffpolicy", "3.00", "s", "1.50")]


def test_the_fleet_of_the_service_s_benchmark_is_told_by_speeds(monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    import service

    assert [worker.speed for worker in service.fleet_of("0.5, 0.25")] == [0.5, 0.25]
    for wrong in ("", "fast", "1,,2", "0", "-1,1", "nan", "inf", ",".join(65 * ["1"])):
        monkeypatch.setattr(sys, "argv", ["service.py", f"--speeds={wrong}"])
        with pytest.raises(SystemExit, match="2"):
            service.main()
        assert f"must be 1 to 64 numbers from 0.01 to 100 with commas between them, as 1.2,0.6,0.6, got {wrong!r}" in (
            capsys.readouterr().err
        )


@pytest.mark.parametrize("amid", [False, True])
def test_a_training_ends_with_its_pass_or_amid_it(monkeypatch, amid):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])
    from diffpolicy.experiments import train
    from ending import EndsAfter

    ending = EndsAfter(0.0, amid=amid)
    with pytest.warns(UserWarning, match="no update of"):
        fitted = train("clinic", "sac", episodes=80, environments=10, callbacks=[ending], changes={"start_after": 9999})
    assert fitted.episodes == (0 if amid else 10)
    assert (0 <= ending.begun < 10) if amid else ending.begun == 0
