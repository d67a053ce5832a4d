"""A comparison: every row in every file, curves that have or have not converged, and its plots."""

import csv
import math
import time
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from diffpolicy import InputError, Policy
from diffpolicy.edge import evaluate, play_episodes
from diffpolicy.edge.names import HEURISTIC_NAMES
from diffpolicy.edge.problem import DELAY, OffloadingProblem
from diffpolicy.evaluation import Played, Result
from diffpolicy.experiments.comparison import Comparison, converged, curves_csv, over_seeds
from diffpolicy.experiments.plan import Job, Outcome, Plan, jobs_of
from diffpolicy.experiments.plots import draw
from diffpolicy.experiments.run import compare
from diffpolicy.experiments.sweep import Sweep, run_sweep
from diffpolicy.experiments.tables import comparison_json, comparison_table
from diffpolicy.experiments.work import _warned_of, finished, work
from toys import quick_method, small

SCENARIO = small(3, 5, 6)
PROBLEM = OffloadingProblem(SCENARIO)
BUNDLED = ["pretrained:live", "pretrained:stale"]
UNTRAINED = [*HEURISTIC_NAMES, *BUNDLED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def methods(folder):
    return [quick_method(name, folder, start_after=5) for name in ("lad-ts", "dqn-ts")]


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def result(folder, methods, said):
    plan = Plan(PROBLEM, methods, folder / "out", episodes=2, eval_episodes=2, seconds=None, processes=1, seed=3)
    return compare(plan, said.append)


def test_bundled_policies_play_by_default_only_where_numba_makes_them_fast(monkeypatch, tmp_path):
    plan = Plan(PROBLEM, [], tmp_path, episodes=2)
    assert plan.untrained == UNTRAINED
    assert not PROBLEM.left_out()
    monkeypatch.setattr("diffpolicy.edge.problem.has_numba", lambda: False)
    assert plan.untrained == list(HEURISTIC_NAMES)
    for word in (*BUNDLED, "numba", "pip install -c constraints.txt '.[fleet]'"):
        assert word in PROBLEM.left_out()
    assert replace(plan, policies=BUNDLED).untrained == UNTRAINED


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


# A whole comparison


def test_every_method_and_every_heuristic_has_a_row(result, folder, methods):
    rows = read(folder / "out" / "comparison.csv")
    assert {row["method"] for row in rows} == {*methods, *UNTRAINED}
    assert len(rows) == len(methods) + len(UNTRAINED)
    assert [row["kind"] for row in rows[:2]] == ["method"] * 2
    assert {row["method"] for row in rows if row["kind"] == "heuristic"} == set(HEURISTIC_NAMES)
    assert {row["method"] for row in rows if row["kind"] == "pretrained"} == set(BUNDLED)
    for row in rows:
        for name in ("mean_delay_s", "ci95_s", "p50_delay_s", "p95_delay_s", "p99_delay_s", "max_delay_s", "load"):
            assert math.isfinite(float(row[name]))
        assert float(row["ratio_lo"]) <= float(row["ratio"]) <= float(row["ratio_hi"])
        trained = row["kind"] == "method"
        assert (row["episodes"], row["training_seeds"], row["converged"]) == (
            ("2", "1", "no") if trained else ("",) * 3
        )
    assert len({row["tasks"] for row in rows}) == 1


def test_methods_come_first_and_each_group_is_sorted_by_delay(result):
    means = [(row.seeds == 0, row.result.costs.mean) for row in result.rows]
    assert means == sorted(means)


def test_a_heuristics_row_is_what_evaluate_gives(result):
    alone = evaluate(["random", "opt-ts"], SCENARIO, episodes=2, seed=3)
    for name, expected in alone.results.items():
        mine = result.row(name).result
        assert mine.costs == expected.costs
        assert mine.ratio == expected.ratio
    assert result.row("opt-ts").told["load"] == pytest.approx(alone.load)


def test_a_methods_row_is_what_its_saved_policy_does(result, folder, methods):
    for name in methods:
        saved = [path for path in (folder / "out" / "policies").rglob("policy.json") if _stem(name) in str(path)]
        assert len(saved) == 1
        policy = Policy.load(saved[0])
        assert policy.trained["seed"] == 3
        assert policy.trained["episodes"] == 2
        if policy.config().get("prior") is None:  # greedy values draw nothing
            cost = play_episodes(SCENARIO, policy, 2, 3).cost
            assert cost.mean() == pytest.approx(result.row(name).result.costs.mean)


def _stem(name):
    return name.rsplit("/", 1)[-1].split(".")[0]


def test_every_training_episode_is_in_the_learning_curves(result, folder, methods):
    rows = read(folder / "out" / "learning_curves.csv")
    trained = [row for row in rows if row["kind"] == "method"]
    assert {(row["method"], row["seed"], row["episode"]) for row in trained} == {
        (name, "3", str(k)) for name in methods for k in (1, 2)
    }
    assert len(trained) == 4
    for row in result.rows[:2]:
        mine = [float(r["delay_s"]) for r in trained if r["method"] == row.name]
        assert [mine] == row.curves
    beside = {row["method"]: float(row["delay_s"]) for row in rows if row["kind"] != "method"}
    assert beside == {
        name: result.row(name).result.costs.mean for name in ("opt-ts", "capacity-proportional", *BUNDLED)
    }


def test_progress_is_told_for_every_job(said, result, methods):
    assert len(said) == len(methods) + len(UNTRAINED)
    assert all(any(name in text for text in said) for name in (*methods, *UNTRAINED))


@pytest.mark.parametrize("file", ["comparison", "learning_curves", "delay_by_size"])
def test_plots_are_pictures(file, result, folder, tmp_path):
    first = draw(folder / "out" / f"{file}.csv", tmp_path / "a")
    assert [path.name for path in first[:2]] == [f"{file}.png", f"{file}.svg"]
    if file == "learning_curves":
        second = draw(folder / "out" / f"{file}.csv", tmp_path / "b")
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    content = first[0].read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 10_000
    import matplotlib.pyplot as plt

    image = plt.imread(first[0])
    assert len(np.unique(image.reshape(-1, image.shape[-1]), axis=0)) > 10
    assert plt.get_fignums() == []


def test_the_delay_by_size_is_that_of_the_tasks(result, folder):
    rows = read(folder / "out" / "delay_by_size.csv")
    assert {row["policy"] for row in rows} == {row.name for row in result.rows}
    for name in ("opt-ts", "random"):
        mine, played = [row for row in rows if row["policy"] == name], result.played[name]
        count = [int(row["tasks"]) for row in mine]
        assert sum(count) == len(played.cost)
        mean = np.average([float(row["mean_delay_s"]) for row in mine], weights=count)
        assert mean == pytest.approx(played.cost.mean())
        of = [float(row["work_gcycles"]) for row in mine]
        assert of == sorted(of)
    assert {row["ratio"] for row in rows if row["policy"] == "opt-ts"} == {"1.0"}


def test_the_table_and_the_json_name_every_row(result, methods):
    table, data = comparison_table(result), comparison_json(result)
    assert all(name in table for name in HEURISTIC_NAMES)
    assert data["methods"].keys() == {*methods, *UNTRAINED}
    assert data["methods"]["opt-ts"]["kind"] == "heuristic"
    assert data["methods"][methods[0]]["training_seeds"] == 1
    assert "not converged" in table


def test_two_comparisons_in_this_process_agree(result, methods):
    job = Job(methods[0], PROBLEM, 2, seed=3, arrivals_seed=3, trained=True, episodes=2)
    outcome = work(job)
    assert outcome.played.cost.mean() == pytest.approx(result.row(methods[0]).result.costs.mean)
    assert [row["delay_s"] for row in outcome.history] == result.row(methods[0]).curves[0]


def test_plots_do_without_methods(result, folder, tmp_path):
    for name in ("comparison", "learning_curves", "delay_by_size"):
        lines = (folder / "out" / f"{name}.csv").read_text().splitlines(keepends=True)
        (tmp_path / f"{name}.csv").write_text("".join(line for line in lines if ",method,0," not in line))
        for path in draw(tmp_path / f"{name}.csv", formats=["png"]):
            assert path.stat().st_size > 5_000


@pytest.mark.slow
def test_a_method_that_does_not_exist_is_refused(folder):
    plan = Plan(PROBLEM, ["nothing"], folder / "none", episodes=1, eval_episodes=1, seconds=None, processes=1)
    with pytest.raises(InputError, match="nothing"):
        compare(plan)
    assert not (folder / "none" / "comparison.csv").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        compare(Plan(PROBLEM, [], tmp_path / "file", episodes=1))


# Plans and jobs


def test_a_plan_needs_an_end_and_names_each_method_once(tmp_path):
    with pytest.raises(InputError, match="neither"):
        Plan(PROBLEM, ["lad-ts"], tmp_path, episodes=None, seconds=None)
    with pytest.raises(InputError, match="lad-ts is named twice"):
        Plan(PROBLEM, ["lad-ts", "lad-ts"], tmp_path)


def test_a_plan_takes_a_folder_by_its_name_and_refuses_what_is_none(tmp_path):
    assert Plan(PROBLEM, [], str(tmp_path), episodes=2).out == tmp_path
    for options, says in (
        ({"out": 3}, "out must be a path, got 3"),
        ({"methods": "lad-ts"}, "methods must be a list of names, got 'lad-ts'"),
        ({"methods": 3}, "methods must be a list of names, got 3"),
        ({"policies": "random"}, "policies must be a list of names, got 'random'"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"eval_episodes": 1.5}, "eval_episodes must be a whole number, got 1.5"),
        ({"episodes": 0}, "episodes must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ):
        with pytest.raises(InputError, match=says):
            Plan(**{"problem": PROBLEM, "methods": [], "out": tmp_path, "episodes": 2, **options})


@pytest.mark.parametrize(("processes", "rounds"), [(1, 6), (2, 3), (4, 2), (9, 1)])
def test_the_time_is_shared_by_the_trainings_that_run_after_each_other(processes, rounds, tmp_path):
    names = ["sac-ts", "d2sac-ts", "lad-ts"]
    plan = Plan(PROBLEM, names, tmp_path, seeds=2, seconds=1000.0, processes=processes)
    trained = [job for job in jobs_of(plan, time.monotonic()) if job.trained]
    assert len(trained) == 6
    assert {(job.name, job.seed) for job in trained} == {(name, seed) for name in names for seed in (0, 1)}
    assert len({job.out for job in trained}) == 6
    assert all(0 < job.seconds * rounds < 1000 for job in trained)
    assert all(job.seconds * rounds > 800 for job in trained)


def test_without_a_time_limit_no_training_has_one(tmp_path):
    plan = Plan(PROBLEM, ["sac-ts"], tmp_path, episodes=5, seconds=None)
    trained, *rules = jobs_of(plan, time.monotonic())
    assert (trained.seconds, trained.episodes) == (None, 5)
    assert [job.name for job in rules] == UNTRAINED


def test_local_is_left_out_where_a_station_has_no_server():
    without = type(SCENARIO)(SCENARIO.slot_s, SCENARIO.servers, 6, (0, None), SCENARIO.workload)
    assert "local" in PROBLEM.compared_rules()
    assert set(OffloadingProblem(without).compared_rules()) == set(HEURISTIC_NAMES) - {"local"}


# Several seeds


def played(mean, episodes=4, items=10):
    cost = np.linspace(0.5, 1.5, episodes * items) * mean
    episode = np.repeat(np.arange(episodes), items)
    return Played(cost, episode, 1.0, {"('agents', 'work_gcycles')": np.ones(episodes * items)})


def outcomes(tmp_path, means):
    common = {"problem": PROBLEM, "eval_episodes": 4, "arrivals_seed": 0}
    trained = [
        Outcome(
            Job("mine", seed=seed, trained=True, **common),
            played(mean),
            [{"episode": k + 1, "delay_s": mean + 1 / (k + 1)} for k in range(3 + seed)],
            10.0 + seed,
        )
        for seed, mean in reversed(list(enumerate(means)))
    ]
    return [Outcome(Job("opt-ts", seed=0, **common), played(2.0)), *trained]


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_seeds_are_pooled_into_one_row(seeds, tmp_path):
    means = [2.0 + 0.2 * k for k in range(seeds)]
    plan = Plan(PROBLEM, ["mine"], tmp_path, episodes=3, seeds=seeds, eval_episodes=4)
    row = Comparison.of(plan, outcomes(tmp_path, means), 1.0).row("mine")
    assert (row.seeds, row.episodes) == (seeds, 3)
    assert row.result.costs.mean == pytest.approx(np.mean(means))
    assert row.result.costs.count == 40 * seeds
    assert row.result.ratio == pytest.approx(np.mean(means) / 2)
    assert row.train_seconds == pytest.approx(10 + (seeds - 1) / 2)
    assert [len(curve) for curve in row.curves] == [3 + k for k in range(seeds)]


def test_from_three_seeds_on_the_intervals_are_over_seeds(tmp_path):
    means, t = [2.0, 2.2, 2.6], 4.3027
    base = Result.of(played(2.0), played(2.0))
    over = over_seeds(base, [played(mean) for mean in means], played(2.0))
    half = t * np.std(means, ddof=1) / math.sqrt(3)
    assert over.ci95 == pytest.approx(half, rel=1e-4)
    assert over.ratio_ci95 == pytest.approx((np.mean(means) / 2 - half / 2, np.mean(means) / 2 + half / 2), rel=1e-4)


def test_curves_of_all_seeds_are_listed_in_order(tmp_path):
    lines = curves_csv(Plan(PROBLEM, ["mine"], tmp_path), outcomes(tmp_path, [2.0, 3.0])).splitlines()
    assert lines[0] == "method,kind,seed,episode,delay_s,baseline,measure"
    lines = [line for line in lines if ",method," in line]
    assert [line.split(",")[2:4] for line in lines] == [["0", str(k)] for k in (1, 2, 3)] + [
        ["1", str(k)] for k in (1, 2, 3, 4)
    ]


# Convergence


def curve(shape, n=80, noise=0.02, seed=0):
    x = np.linspace(0, 1, n)
    return list(shape(x) + noise * np.random.default_rng(seed).standard_normal(n))


@pytest.mark.parametrize("seed", range(5))
def test_a_falling_curve_has_not_converged_and_a_flat_one_has(seed):
    assert not converged(curve(lambda x: 5 - 2 * x, seed=seed))
    assert converged(curve(lambda x: 2 + 3 * np.exp(-20 * x), seed=seed))
    assert converged(curve(lambda x: 3 + 0 * x, noise=0.0))


def test_a_rising_curve_has_stopped_falling():
    assert converged(curve(lambda x: 2 + x))


def test_a_fall_within_one_percent_or_within_the_noise_does_not_count():
    assert converged(curve(lambda x: 10 - 0.1 * x, noise=0.0))
    assert not converged(curve(lambda x: 10 - x, noise=0.0))
    assert converged(curve(lambda x: 10 - x, noise=3.0))


@pytest.mark.parametrize("n", [0, 1, 19])
def test_a_short_curve_has_not_converged(n):
    assert not converged([3.0] * n)
    assert converged([3.0] * 20)


# Going on where an earlier run ended


def test_what_was_finished_is_taken_up_and_gives_the_same_table(tmp_path, methods):
    def plan(**changes):
        return Plan(PROBLEM, methods, tmp_path, episodes=2, eval_episodes=2, seconds=None, processes=1, **changes)

    first = compare(plan())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("policy.json")}
    again = compare(plan(resume=True))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("policy.json")} == before
    for row in first.rows:
        other = again.row(row.name)
        assert other.result.to_dict(DELAY) == row.result.to_dict(DELAY)
        assert (other.curves, other.train_seconds, other.updates) == (row.curves, row.train_seconds, row.updates)


def test_another_run_is_not_taken_for_this_one(tmp_path, methods):
    plan = {"episodes": 2, "eval_episodes": 1, "seconds": None, "processes": 1, "policies": ["opt-ts"]}
    compare(Plan(PROBLEM, methods[1:], tmp_path, **plan))
    out = next(tmp_path.rglob("outcome.json")).parent

    def taken(**change):
        job = jobs_of(Plan(PROBLEM, methods[1:], tmp_path, **{**plan, "resume": True, **change}), time.monotonic())[0]
        return finished(replace(job, out=out)) is not None

    assert taken()
    for change in ({"episodes": 3}, {"seed": 1}, {"changes": {"gamma": 0.5}}, {"compiled": True}):
        assert not taken(**change), change


def test_an_unfinished_training_is_done_again(tmp_path, methods):
    job = jobs_of(Plan(PROBLEM, methods[1:], tmp_path, episodes=2, seconds=None, resume=True), time.monotonic())[0]
    assert finished(job) is None


def test_what_a_training_warns_of_is_told_at_once_with_its_name():
    """It came when the training had ended, and never from one that was killed."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", "hush")
        told = []
        for seed in range(2):
            with _warned_of(SimpleNamespace(named=lambda seed=seed: f"dqn, seed {seed}")):
                for text in ("slow", "hush", "slow"):
                    warnings.warn(text, RuntimeWarning, stacklevel=1)
                told.append([(str(each.message), each.category) for each in heard])
        warnings.warn("slow", RuntimeWarning, stacklevel=1)
    first, second = (f"dqn, seed {seed}: slow" for seed in range(2))
    assert told == [[(first, RuntimeWarning)], [(first, RuntimeWarning), (second, RuntimeWarning)]]
    assert str(heard[-1].message) == "slow"


# Sweeps


def test_a_sweep_compares_at_every_value(tmp_path, methods):
    sweep = Sweep.parse("tasks=2,4", PROBLEM)
    plan = Plan(PROBLEM, methods[:1], tmp_path, episodes=1, eval_episodes=1, seconds=None, processes=1)
    results = run_sweep(plan, sweep)
    assert [c.plan.problem.scenario.workload.max_tasks for c in results] == [2, 4]
    rows = read(tmp_path / "sweep.csv")
    assert {row["tasks"] for row in rows} == {"2", "4"}
    assert {row["policy"] for row in rows} == {methods[0], *UNTRAINED}
    for row in rows:
        comparison = results[["2", "4"].index(row["tasks"])]
        assert float(row["mean_delay_s"]) == comparison.row(row["policy"]).result.costs.mean
        interval = comparison.row(row["policy"]).result.ratio_ci95
        assert (row["ratio_lo"], row["ratio_hi"]) == (("", "") if interval is None else tuple(map(str, interval)))
        assert (row["baseline"], row["measure"]) == ("opt-ts", "delay, s")
    assert [path.name for path in draw(tmp_path / "sweep.csv")] == ["sweep.png", "sweep.svg"]


def test_a_sweep_over_a_methods_knob_trains_with_it_and_tells_where_nothing_was_learned(tmp_path, methods):
    sweep = Sweep.parse("denoising-steps=1,3", PROBLEM)
    played = {"episodes": 1, "eval_episodes": 1, "policies": ["opt-ts"]}
    late = quick_method("lad-ts", tmp_path, start_after=99)
    plan = Plan(PROBLEM, [methods[0], late], tmp_path, **played, seconds=None, processes=1)
    with pytest.warns(UserWarning, match="no update of") as heard:
        results = run_sweep(plan, sweep)
    steps = [Policy.load(path).schedule.steps for path in sorted(tmp_path.rglob("policy.json"))]
    assert steps == [1, 1, 3, 3]
    told = [str(each.message).split(": no update")[0] for each in heard if "no update of" in str(each.message)]
    assert told == [f"{late}, seed 0, denoising-steps={count}" for count in (1, 3)]
    for result in results:
        assert [(result.row(name).updates > 0, result.row(name).converged) for name in plan.methods] == [
            (True, False),
            (False, False),
        ]
        assert all(text in comparison_table(result) for text in ("1*", "* not converged", "1†", "† not trained"))
        assert comparison_json(result)["methods"][late]["updates"] == 0


def test_a_sweeps_time_is_shared_by_its_values(tmp_path):
    plan = Plan(PROBLEM, ["sac-ts"], tmp_path, seconds=300.0)
    assert Sweep.parse("capacity=3:4,3:6,3:9", PROBLEM).apply(plan, (3, 4)).seconds == 100.0
