"""Figures of the pages against the files that commands wrote, and what rules of problems cost, played again."""

import csv
import re
from statistics import fmean, median, stdev

import numpy as np
import pytest

from diffpolicy.experiments import evaluate
from test_docs_claims import DOCS, PAGES, ROOT, agrees, named, rows, table, tables


def words(page):
    """A page's text on one line."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


def test_every_file_of_figures_that_a_page_names_is_there_and_every_file_is_named():
    there = {path.name for path in (DOCS / "_static").glob("*.csv")}
    pages = [*PAGES, *(ROOT / "examples").rglob("*.py")]
    said = {name for page in pages for name in re.findall(r"_static/(\w+\.csv)", page.read_text(encoding="utf-8"))}
    assert said <= there
    pictures = {f"{path.stem.removesuffix('-dark')}.csv" for path in (DOCS / "_static").glob("*.svg")}
    families = {
        f"sweep_{key}.csv" for key in ("stations", "capacity", "steps", "denoising_steps", "temperature", "tasks")
    }
    assert there <= said | pictures | families


def test_the_first_look_shows_the_figures_of_its_arrivals():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    true = {row["policy"]: row for row in rows("load.csv") if row["tasks"] == "50"}
    lines = re.findall(r"^  (\S+) +([\d.]+ ± [\d.]+) +(.*?)$", text, re.MULTILINE)
    assert {name for name, *_ in lines} == {"opt-ts", "price", "pretrained:live", "random"}
    for name, mean, others in lines:
        row = true[name]
        assert agrees(mean, row["mean_delay_s"], row["ci95_s"]), name
        half = (float(row["ratio_hi"]) - float(row["ratio_lo"])) / 2
        _, _, p99, _, *ratio = re.findall(r"[\d.]+", others)[:6]
        assert agrees(" ".join([p99, *ratio]), row["p99_delay_s"], row["ratio"], half), name


def test_the_readme_names_the_speed_of_its_file():
    trained = {row["contender"]: row for row in rows("training_speed.csv")}
    as_fast = trained["diffpolicy lad-ts-released"]["times as fast, CPU"]
    for page in ("README.md", "docs/results.md"):
        assert agrees(re.search(r"(\d+) times as fast as the released code", words(page))[1], as_fast)


def test_costs_grow_by_the_powers_that_are_said():
    grown = [{name: float(x) for name, x in row.items()} for row in rows("growth.csv")]
    powers = []
    for along, others in (("servers", "tasks"), ("tasks", "servers")):
        kept = grown[0][others]
        of = [row for row in grown if row[others] == kept]
        x = np.log([row[along] for row in of])
        for cost in ([row["us_per_decision"] * row["tasks"] for row in of], [row["ms_per_update"] for row in of]):
            powers.append(np.polyfit(x, np.log(cost), 1)[0])
    text = words("docs/results/speed.md")
    said = re.search(r"power of ([\d.]+), that of an update to the power of ([\d.]+).*?are ([\d.]+) and ([\d.]+)", text)
    assert agrees(" ".join(said.groups()), *map(abs, powers))


def test_policies_on_another_law_are_those_of_their_file():
    true = {(row["arrivals"], row["policy"]): row for row in rows("unseen_other.csv")}
    head, body = next((h, b) for h, b in tables("docs/deciding.md") if h[0] == "arrivals")
    names = {name: "opt-ts" if "opt-ts" in name else f"pretrained:{named(name)}" for name in head[3:]}
    names |= {name: "price" for name in names if "price" in name}
    assert len(body) * len(names) == len(true)
    for what, tasks, load, *cells in body:
        for cell, name in zip(cells, names.values(), strict=True):
            row = true[what.split(",")[0], name]
            assert agrees(f"{tasks.replace(',', '')} {load}", row["tasks"], row["load"])
            assert agrees(cell, row["mean, s"], *[row["ratio to opt-ts"]] * (name != "opt-ts")), (what, name)


def test_the_fixed_split_is_that_of_its_file():
    true = {(row["scenario"], row["slots"]): row["ratio to opt-ts"] for row in rows("fixed_split.csv")}
    for cells in table("docs/results/fleets.md", "scenario", "fixed split"):
        assert agrees(cells["fixed split"], *(true[cells["scenario"], slots] for slots in ("59", "590")))


def test_the_rules_that_are_listed_have_the_figures_of_the_comparison():
    true = {row["method"]: row for row in rows("full_comparison.csv")}
    for cells in table("docs/heuristics.md", "rule", "mean delay, s"):
        row = true[named(cells["rule"])]
        half = (float(row["ratio_hi"]) - float(row["ratio_lo"])) / 2
        assert agrees(cells["mean delay, s"], row["mean_delay_s"], row["ci95_s"]), cells
        assert agrees(cells["ratio to `opt-ts`"], row["ratio"], half) or row["method"] == "opt-ts", cells


def test_the_papers_table_is_made_again_by_its_file():
    true = list(csv.reader((DOCS / "_static" / "table2.csv").open(newline="", encoding="utf-8")))
    body = next(b for h, b in tables("docs/calibrating.md") if h[0] == "seconds of N images")
    for shown, row in zip(body, true[1:], strict=True):
        assert agrees(" ".join(shown[1:]), *row[1:5]), shown


def test_the_simulator_beside_real_workers_is_that_of_its_file():
    true = rows("simulator_vs_reality.csv")
    for cells, row in zip(table("docs/calibrating.md", "run", "gap"), true, strict=True):
        assert agrees(cells["load"], row["load"])
        assert agrees(cells["mean of the workers, s"], row["real mean s"])
        assert agrees(cells["p95 of the workers, s"], row["real p95 s"])
    text = words("docs/calibrating.md")
    gaps = [100 * median(abs(float(row[gap])) for row in true) for gap in ("gap", "gap p95")]
    assert agrees(" ".join(re.search(r"median gap is ([\d.]+) % of the mean and ([\d.]+) %", text).groups()), *gaps)


@pytest.mark.parametrize("file", ["service", "service_1000"])
def test_the_service_beside_the_simulator_is_that_of_its_file(file):
    text = (DOCS / "serving" / "demo.md").read_text(encoding="utf-8")
    bodies = [b for h, b in tables("docs/serving/demo.md") if h[1] == "over HTTP, s"]
    assert f"{file}.csv" in text
    for (rule, http, simulated, ratio, dead, of_dead), row in zip(
        bodies[file != "service"], rows(f"{file}.csv"), strict=True
    ):
        assert rule == row["rule"]
        spread = [row["simulator_spread_s"]] * ("±" in simulated)
        assert agrees(http, row["http_mean_s"])
        assert agrees(simulated, row["simulator_mean_s"], *spread)
        assert agrees(f"{ratio} {dead} {of_dead}", row["ratio"], row["dead_ms"], row["ratio_with_dead"]), rule


def test_what_a_trial_takes_is_in_its_file():
    text, true = words("docs/serving/serve.md"), rows("trial.csv")
    same = [row for row in true if row["policy"] == "the same"]
    trials, ended = re.search(r"Of the ([\d,]+) trials of a policy that was the same, (\d+) ended", text).groups()
    assert int(trials.replace(",", "")) == sum(int(row["trials"]) for row in same)
    assert int(ended) == sum(int(row["ended"]) for row in same)
    missed = next(
        r for r in true if (r["share"], r["delays"], r["policy"]) == ("0.1", "two servers, load 1.1", "ends last")
    )
    assert f"only {missed['ended']} of {missed['trials']} found" in text


def test_pendulum_is_what_its_file_says():
    found = {}
    for row in rows("pendulum.csv"):
        found.setdefault(row["method"], []).append(row)
    student = {3: 4.303, 4: 3.182, 5: 2.776}
    for cells in table("docs/benchmarks.md", "method", "mean return"):
        of = found[named(cells["method"])]
        returns = [float(row["mean return"]) for row in of]
        half = student[len(of)] * stdev(returns) / len(of) ** 0.5
        assert agrees(cells["mean return"].replace("-", ""), -fmean(returns), half, slack=0.005), cells
        assert agrees(cells["worst seed"].replace("-", ""), -min(returns)), cells
        assert agrees(cells["episodes"].replace(",", ""), fmean(float(row["episodes"]) for row in of)), cells


def test_the_released_curve_is_that_of_its_file():
    seeds = {}
    for row in rows("released_curve.csv"):
        if row["method"] == "lad-ts-released" and row["seed"]:
            seeds.setdefault(row["seed"], []).append(float(row["delay_s"]))
    blocks = [[fmean(each[k : k + 10]) for each in seeds.values()] for k in range(0, 60, 10)]
    body = next(b for h, b in tables("docs/results/reproduction.md") if h[0] == "episodes" and len(h) == 7)
    assert agrees(" ".join(body[0][1:]), *map(fmean, blocks))
    assert agrees(" ".join(body[1][1:]), *map(stdev, blocks))


def test_importing_costs_at_most_half_more_than_torch_and_tensordict():
    related = {row["what"]: row["in relation"] for row in rows("imports.csv")}
    assert float(related["import diffpolicy"]) <= 1.5
    assert float(related["from diffpolicy import DiffusionPolicy"]) <= 1.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "problem", "episodes", "column"),
    [
        ("clinic", "clinic", 64, "cost of a minute"),
        ("power-allocation", "power-allocation", 64, "lost rate, %"),
        ("split", "split", 64, "mean delay, s"),
        ("held", "held", 16, "sum of delays, s"),
    ],
)
def test_the_rules_of_a_problem_cost_what_its_page_says(page, problem, episodes, column):
    shown = table(f"docs/problems/{page}.md", "policy", column)
    trained = {"bc", "bc-plain", "d2sac", "sac", "pathwise", "pathwise-plain"}
    names = [named(row["policy"]) for row in shown if named(row["policy"]) not in trained]
    first = names[: names.index(names[0], 1)] if names[0] in names[1:] else names  # tables of other episodes follow
    assert len(first) >= 2
    results = evaluate(problem, first, episodes=episodes).results
    for row in shown[: len(shown) if first == names else len(first)]:
        if named(row["policy"]) in first:
            assert agrees(row[column], results[named(row["policy"])].costs.mean), row
