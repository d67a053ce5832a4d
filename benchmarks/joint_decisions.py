"""Does one joint decision of a station's slot, or of all held requests, earn its place?

Parts, each row of which is one seed of arrivals, paired with the same seed of the part's baseline:
  search    every station places its tasks by a search over one critic, the price that `pretrained:stale` meets at its
            turn: each task apart, in order, by a beam, and the best joint assignment that is found
  renewed   beams over the prices of the bundled policy itself, which it renews after each task
  arms      a masked chain of at most eight passes and a categorical, which imitate that best assignment, trained alike
  longer    the same with ten times the training
  held      waiting requests and servers matched jointly, against one binding at a time
`--part hindsight` asks what joint assignments would save a critic that knows the whole episode.

python benchmarks/joint_decisions.py --csv docs/_static/joint_decisions.csv      # goes on where it was interrupted
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from diffpolicy.edge import Scenario, Server
from diffpolicy.edge.dispatch import CostMinusAge, Dispatcher, Held, ShortestFirst, simulate
from diffpolicy.edge.evaluation import play_episodes
from fleets import random_problem
from held import CASES, figures, interval, requests
from joint_arms import PASSES, Arm, Turn
from joint_matching import Planned, Timed, Together
from joint_search import Costs, Search, apart, best_of_beam, in_order, searched
from joint_turns import TurnRule, hindsight, one_by_one, policy_of
from timing import table

PROBLEMS = ("25", "40", "50", "fleet")
LOADS = (0.6, 0.8, 0.95, 1.1, 1.24)
"""Of the random fleets, one a seed."""
COLUMNS = ["part", "problem", "rule", "seed", "mean_delay_s", "p99_delay_s", "ratio", "us_per_item", "told"]
COLUMNS += ["share_of_delay"]  # of the episode's, by the critic in hindsight, which knows no delays of single tasks
RESTARTS = 20
SEARCHES: dict[str, Search] = {
    "apart": apart,
    "in order": in_order,
    **{f"beam of {w}": partial(best_of_beam, width=w) for w in (8, 64)},
    "joint search": partial(searched, restarts=RESTARTS),
}
BASELINE = "pretrained:stale"
LONGER = 10
"""How many times as long as `--minutes` the arms of the part `longer` are trained."""
SECOND = {"search": "in order", "hindsight": "in order", "arms": "categorical", "longer": "categorical, longer"}
"""What rows stand beside as well, by part."""
Row = dict[str, str]


def scenario_of(problem: str, seed: int, small: bool, stations: int = 20) -> Scenario:
    """`lad-ts` of so many tasks and stations, or a random fleet of so many servers. Args: small: of few, for a test."""
    stations = 3 if small else stations
    if problem != "fleet":
        scenario = Scenario.load("lad-ts")
        scenario = scenario if problem == "50" else scenario.override(tasks=int(problem))
        scenario = scenario if stations == 20 else scenario.override(stations=stations)
        return scenario.override(tasks=6, slots=4) if small else scenario
    drawn = random_problem(np.random.default_rng([seed, 20]), stations, LOADS[seed % len(LOADS)], seed)
    servers = tuple(Server(f, v) for f, v in zip(drawn.capacity.tolist(), drawn.rate.tolist(), strict=True))
    return Scenario(1.0, servers, 4 if small else drawn.slots, workload=drawn.law, name="random fleet")


def played(scenario: Scenario, rules: dict[str, TurnRule], options: argparse.Namespace, seed: int) -> Iterator[Row]:
    """Rows of rules on the same episodes; the first is the baseline."""
    base = 0.0
    for name, rule in rules.items():
        delay = play_episodes(scenario, policy_of(scenario, rule), options.episodes, seed).cost
        mean, base = float(delay.mean()), base or float(delay.mean())
        yield row(name, seed, mean, float(np.percentile(delay, 99)), base, rule.seconds / len(delay))


def row(rule: str, seed: int, mean: float, p99: float, base: float, seconds: float, told: str = "") -> Row:
    """A row's cells but for part and problem."""
    numbers = f"{mean:.5f}", f"{p99:.4f}", f"{mean / base:.5f}", f"{1e6 * seconds:.1f}"
    return dict(zip(COLUMNS[2:-1], [rule, str(seed), *numbers, told], strict=True))


def search(problem: str, seed: int, options: argparse.Namespace) -> Iterator[Row]:
    """Searches over the price, in the place of the rule's own decisions."""
    rules = {BASELINE: TurnRule(), "price not renewed": TurnRule(one_by_one(in_order), ahead=True)}
    rules |= {name: TurnRule(one_by_one(each)) for name, each in SEARCHES.items()}
    return played(scenario_of(problem, seed, options.small), rules, options, seed)


def renewed(problem: str, seed: int, options: argparse.Namespace) -> Iterator[Row]:
    """Beams over the rule's own prices, which are renewed after each task."""
    rules = {BASELINE: TurnRule()}
    for ahead, name in ((True, "beam of 8, renewed"), (False, "beam of 8, renewed, siblings counted")):
        rules[name] = TurnRule(width=8, ahead=ahead)
    return played(scenario_of(problem, seed, options.small), rules, options, seed)


def turns_of(scenario: Scenario, seed: int, episodes: int) -> list[Turn]:
    """Turns that stations meet in other episodes, with the best assignment that is found."""
    turns: list[Turn] = []

    def watch(*slot: list[Costs]) -> None:
        for turn in zip(*slot, strict=True):
            alone, service, slope = (x.copy() for x in turn)
            turns.append((alone, service, slope, searched(alone, service, slope, RESTARTS)))

    play_episodes(scenario, policy_of(scenario, TurnRule(watch=watch)), episodes, 1000 + seed)
    return turns


def arms(problem: str, seed: int, options: argparse.Namespace) -> Iterator[Row]:
    """Both policies of a station's slot, trained from the same turns for the same time."""
    scenario = scenario_of(problem, seed, options.small, options.stations)
    turns, told = turns_of(scenario, seed, options.train_episodes), {}
    rules = {BASELINE: TurnRule(), "joint search": TurnRule(one_by_one(SEARCHES["joint search"]))}
    for name, passes in PASSES.items():
        arm = Arm(passes, len(scenario.servers), seed)
        updates, loss = arm.train(turns, 60 * options.minutes)
        told[name] = f"{updates} updates of {60 * options.minutes:g} s on {len(turns)} turns, loss {loss:.3f}"
        rules[name] = TurnRule(arm.decide)
    for each in played(scenario, rules, options, seed):
        yield {**each, "told": told.get(each["rule"], "")}


def longer(problem: str, seed: int, options: argparse.Namespace) -> Iterator[Row]:
    """The same policies with more training, by names of their own."""
    more = argparse.Namespace(**{**vars(options), "minutes": LONGER * options.minutes})
    for each in arms(problem, seed, more):
        yield each | ({"rule": f"{each['rule']}, longer"} if each["rule"] in PASSES else {})


def knowing(problem: str, seed: int, options: argparse.Namespace) -> Iterator[Row]:
    """Costs by a critic that knows the episode; `ratio` is to the delay as played."""
    found = hindsight(scenario_of(problem, seed, options.small), seed, SEARCHES)
    for name, share in found.items():
        cells = {"rule": name, "seed": str(seed), "ratio": f"{share / found['as played']:.5f}"}
        yield cells | {"share_of_delay": f"{share:.5f}"}


def held(problem: str, seed: int, options: argparse.Namespace) -> Iterator[Row]:
    """Matchings of held requests; the first is one binding at a time, by the same order."""
    case = next(x for x in CASES if x.name == problem)
    arrivals, base = requests(case, options.requests, seed), 0.0
    rules: dict[str, Dispatcher] = {
        "shortest first": Held(ShortestFirst()),
        "shortest first, never waits": Held(ShortestFirst(), price=None),
        "shortest first, matched": Together(ShortestFirst()),
        "shortest first, matched, price": Together(ShortestFirst(), price=3.0),
        "plan of all": Planned(),
        "cost minus age": Held(CostMinusAge(0.5)),
        "cost minus age, matched, price": Together(CostMinusAge(0.5), price=3.0),
    }
    for name, rule in rules.items():
        timed = Timed(rule)
        mean, p99, *_ = figures(simulate(arrivals, timed, seed=seed))
        base, told = base or mean, ""
        if isinstance(rule, Together):
            told = f"{rule.chances[1] / max(rule.chances[0], 1):.4f} of moments have two and two"
        yield row(name, seed, mean, p99, base, timed.seconds / len(arrivals), told)


PARTS: dict[str, tuple[tuple[str, ...], Callable[[str, int, argparse.Namespace], Iterator[Row]]]] = {
    "search": (PROBLEMS, search),
    "renewed": (PROBLEMS, renewed),
    "hindsight": (PROBLEMS[:3], knowing),
    "arms": (PROBLEMS, arms),
    "longer": (("40",), longer),  # of the four the one where passes gain most and the search is missed by most
    "held": (tuple(case.name for case in CASES), held),
}


def main() -> None:
    """Plays what is not in the file yet, row for row, and prints the means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="by default all")
    parser.add_argument("--problems", help="by default all of a part")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=1, help="that are played of each seed")
    parser.add_argument("--train-episodes", type=int, default=2, help="whose turns are imitated")
    parser.add_argument("--minutes", type=float, default=0.15, help="of the processor, for each training")
    parser.add_argument("--stations", type=int, default=20, help="and servers, of the trained arms")
    parser.add_argument("--requests", type=int, default=4_000, help="held requests of each seed")
    parser.add_argument("--small", action="store_true", help="few stations and slots, to see that it runs")
    parser.add_argument("--csv", type=Path, default=Path("runs/joint_decisions.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(options.csv.open(newline=""))) if options.csv.exists() else []
    done = {(x["part"], x["problem"], x["seed"]) for x in rows}
    for part in options.part or PARTS:
        known, run = PARTS[part]
        for problem in options.problems.split(",") if options.problems else known:
            for seed in range(options.seeds):
                if problem in known and (part, problem, str(seed)) not in done:
                    rows += [{"part": part, "problem": problem, **x} for x in run(problem, seed, options)]
                    write(options.csv, rows)
                    print(f"{part}, {problem}, seed {seed}", file=sys.stderr, flush=True)
    print(table(["part", "problem", "rule", "seeds", "mean, s", "ratio", "to the second", "us a task"], summary(rows)))


def write(path: Path, rows: list[Row]) -> None:
    """All rows, in the place of the file at once."""
    new = path.with_suffix(".new")
    with new.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    new.replace(path)


def summary(rows: list[Row]) -> list[list[str]]:
    """Means over seeds, and ratios to the same seed of a part's baseline and of its second one, with 95 % intervals."""
    groups: dict[tuple[str, str, str], dict[str, Row]] = {}
    for each in rows:
        groups.setdefault((each["part"], each["problem"], each["rule"]), {})[each["seed"]] = each
    lines = []
    for (part, problem, rule), of in groups.items():
        second = groups.get((part, problem, SECOND.get(part, "")), {})
        cells = [with_interval([float(x["ratio"]) for x in of.values()])]
        pairs = [(_cost(x), _cost(second[seed])) for seed, x in of.items() if seed in second]
        cells.append(with_interval([mine / theirs for mine, theirs in pairs]))
        mean, cost = np.mean([(_cost(x), float(x.get("us_per_item") or 0.0)) for x in of.values()], 0)
        lines.append([part, problem, rule, str(len(of)), f"{mean:.4f}", *cells, f"{cost:.0f}"])
    return lines


def _cost(row: Row) -> float:
    """The mean delay, or in hindsight the share of it."""
    return float(row.get("mean_delay_s") or row["share_of_delay"])


def with_interval(ratios: list[float]) -> str:
    """A mean with its 95 % interval over seeds; nothing of nothing."""
    if not ratios:
        return ""
    low, high = interval(np.array(ratios))
    return f"{np.mean(ratios):.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
