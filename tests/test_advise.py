"""`advise` on logs of hidden fleets that it never saw: the right rule, and refusals of what proves nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from diffpolicy.cli.main import main
from diffpolicy.edge.dispatch import Arrivals, Dispatcher, OnArrival, Outcome, make_held, simulate
from diffpolicy.edge.dispatch.advice import HELD, TAIL, advise
from diffpolicy.edge.dispatch.advised_fleet import AdvisedFleet
from diffpolicy.edge.dispatch.on_arrival import WEIGHINGS
from diffpolicy.edge.dispatch.request_log import RequestLog
from diffpolicy.edge.dispatch.service_fit import ServiceFit
from diffpolicy.edge.dispatch.verdicts import Advice, Verdict
from diffpolicy.edge.scenario.scenario import Scenario, Server
from diffpolicy.errors import InputError

RULES: dict[str, Dispatcher] = {
    **{f"{name}, on arrival": OnArrival(name) for name in WEIGHINGS},
    **{f"{name}, held": make_held(name) for name in HELD},
}


@dataclass(frozen=True)
class Hidden:
    """A log and the truth behind it. Args: path: of the log. arrivals, outcome: what happened."""

    path: Path
    arrivals: Arrivals
    outcome: Outcome


def hidden(
    folder: Path, seed: int, count: int = 4_000, rule: str = "", load: float = 0.0, starts: bool = False, seats: int = 1
) -> Hidden:
    """Requests of some kinds on a fleet of unlike servers, each faster at some kinds, under a rule of today."""
    rng = np.random.default_rng(seed)
    servers, kinds = int(rng.integers(2, 7)), int(rng.integers(2, 6))
    speeds = rng.choice([0.5, 0.7, 1.0, 1.5, 2.0], servers)
    steps, side = rng.integers(8, 50, kinds), rng.choice([512, 768, 1024, 1536], kinds)
    base = 0.3 + 0.025 * steps * (side / 512) ** rng.uniform(1.6, 2.4)
    share = rng.dirichlet(2 * np.ones(kinds))
    kind = rng.choice(kinds, count, p=share)
    load = load or rng.uniform(0.5, 0.9)
    arrival = np.cumsum(rng.exponential(base @ share / speeds.sum() / seats / load, count))
    expected = (base[:, None] / speeds * np.exp(rng.normal(0, 0.1, (kinds, servers))))[kind]
    arrivals = Arrivals(
        arrival, expected * np.exp(rng.normal(0, 0.1, (count, 1))), expected, cost=(steps * side**2 / 1e6)[kind]
    )
    chosen = rule or str(rng.choice(["random", "least-cost", "least-outstanding", "least-finish"]))
    outcome = simulate(arrivals, OnArrival(chosen), seed=seed, seats=seats)
    path = folder / f"log{seed}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arrival_s", "server", "end_s", "width", "height", "steps", *(["start_s"] if starts else [])])
        for i in range(count):
            row = [repr(float(arrival[i])), f"gpu{outcome.server[i]}", repr(float(outcome.finish_s[i]))]
            row += [side[kind[i]], side[kind[i]], steps[kind[i]]]
            writer.writerow([*row, *([repr(float(outcome.start_s[i]))] if starts else [])])
    return Hidden(path, arrivals, outcome)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_the_right_rule_is_named_on_a_hidden_fleet(seed: int, tmp_path: Path) -> None:
    """Its true mean is within 2 % of the best fair rule's, and the predicted means within 5 % of the true ones."""
    log = hidden(tmp_path, seed)
    advice = advise(RequestLog.read(log.path))
    true = {name: simulate(log.arrivals, rule).delay_s for name, rule in RULES.items()}
    recorded = log.outcome.delay_s
    assert advice.recorded_mean_s == pytest.approx(recorded.mean())
    assert advice.replayed_mean_s == pytest.approx(recorded.mean(), rel=0.05)
    for name, delay in true.items():
        if delay.mean() < 1.5 * recorded.mean():  # what drowns a server is far worse, and by how much is luck
            assert advice.verdicts[name].mean_s == pytest.approx(delay.mean(), rel=0.05), name
    fair = [d.mean() for d in true.values() if np.percentile(d, 99) <= TAIL * np.percentile(recorded, 99)]
    best = min([*fair, recorded.mean()])
    assert (recorded if advice.named is None else true[advice.named]).mean() <= 1.02 * best + 1e-9


def test_times_that_no_sample_tells_come_from_the_law_of_size_and_widen_the_interval(tmp_path: Path) -> None:
    """Two servers, 2 + 0.5 size and twice that; the slow one never ran the largest size."""
    path, rows, now = tmp_path / "log.csv", ["arrival_s,server,end_s,cost"], 0.0
    for k in range(400):
        size, fast = (1, 2, 4, 8)[k % 4], k // 4 % 2 == 0 or k % 4 == 3
        rows.append(f"{now},{'fast' if fast else 'slow'},{now + (2 + 0.5 * size) * (1 if fast else 2)},{size}")
        now += 20
    path.write_text("\n".join(rows))
    log = RequestLog.read(path)
    fit = ServiceFit.of(log)
    assert fit.seconds == pytest.approx(np.array([[2.5, 5.0], [3.0, 6.0], [4.0, 8.0], [6.0, 12.0]]), rel=0.02)
    assert fit.extrapolated.tolist() == [[False, False]] * 3 + [[False, True]]
    verdict = advise(log).verdicts["random, on arrival"]
    assert 0.1 < verdict.extrapolated < 0.4
    assert verdict.high - verdict.low > 2 * 0.1 * verdict.extrapolated


def test_two_equal_servers_in_turn_at_low_load_leave_nothing_to_gain(tmp_path: Path) -> None:
    log = hidden(tmp_path, 3, count=600, rule="least-finish", load=0.1)
    advice = advise(RequestLog.read(log.path))
    assert advice.named is None
    assert "No rule is named" in advice.why
    assert "fewer than 1,000 requests" in advice.why


def test_clients_that_wait_for_answers_are_noticed(tmp_path: Path) -> None:
    """Three clients, each of which asks again 10 ms after its answer."""
    path, rng = tmp_path / "closed.csv", np.random.default_rng(0)
    ready, free, rows = [0.0, 0.1, 0.2], [0.0, 0.0], []
    for _ in range(900):
        client, server = int(np.argmin(ready)), int(np.argmin(free))
        end = max(ready[client], free[server]) + rng.uniform(1, 3)
        rows.append(f"{ready[client]},{server},{end},1")
        ready[client], free[server] = end + 0.01, end
    path.write_text("\n".join(["arrival_s,server,end_s,cost", *rows]))
    assert advise(RequestLog.read(path)).closed_loop
    assert not advise(RequestLog.read(hidden(tmp_path, 1).path)).closed_loop


def test_servers_that_work_on_several_at_once_are_seen_where_the_log_tells_starts(tmp_path: Path) -> None:
    """Taken for one at a time, the same log would replay to many times its own mean."""
    log = hidden(tmp_path, 2, count=1_500, rule="least-outstanding", load=0.8, starts=True, seats=2)
    advice = advise(RequestLog.read(log.path))
    assert set(advice.seats.values()) == {2}
    assert advice.replayed_mean_s == pytest.approx(advice.recorded_mean_s, rel=0.02)
    assert advice.named is not None
    true = simulate(log.arrivals, RULES[advice.named], seats=2).delay_s.mean()
    assert advice.verdicts[advice.named].mean_s == pytest.approx(true, rel=0.05)
    assert all(v.low <= v.gain <= v.high < 1 for v in advice.verdicts.values())


def test_nothing_is_named_where_the_log_does_not_replay(tmp_path: Path) -> None:
    """Without starts nobody can tell that the servers work on two at once."""
    log = hidden(tmp_path, 2, count=1_500, rule="least-outstanding", load=0.8, seats=2)
    advice = advise(RequestLog.read(log.path))
    assert advice.named is None
    assert "replayed with fitted times" in advice.why
    assert "start_s would tell" in advice.why


def test_nothing_is_named_by_times_that_are_mostly_extrapolated(tmp_path: Path) -> None:
    log = hidden(tmp_path, 2, count=110, rule="random", load=0.9)
    advice = advise(RequestLog.read(log.path))
    assert min(v.extrapolated for v in advice.verdicts.values()) > 0.5
    assert advice.named is None


def test_the_advice_says_why_the_best_is_not_named_and_that_an_hour_may_be_of_another_unit() -> None:
    sure, unsure = Verdict(2.0, 9.0, 0.5, 0.4, 0.6, 0.0, 0), Verdict(1.0, 9.0, 0.7, 0.6, 0.8, 0.9, 0)
    verdicts = {"best, on arrival": unsure, "named, on arrival": sure}
    advice = Advice("log", 9, 2, 4000.0, 9e3, 4000.0, verdicts, "named, on arrival", "why", False, {}, {}, {}, None)
    assert "more than 50% of the work is unsure: best, on arrival." in advice.table()
    assert "--unit ms" in advice.table()
    plain = replace(advice, recorded_mean_s=4.0, verdicts={"named, on arrival": sure}, left_out={"without an end": 1})
    assert "unsure:" in plain.table()  # the note alone
    assert "Not named" not in plain.table()
    assert "--unit" not in plain.table()
    assert "1 row without" in plain.table()


def test_a_very_bad_rule_leaves_names_whole_and_a_lone_jump_back_is_said(tmp_path: Path) -> None:
    names = [f"{name}, held" for name in HELD]
    bad = Verdict(836.0, 3905.2, -207.777, -317.5, -109.267, 0.0, 6)
    advice = Advice("log", 9, 2, 4.0, 9.0, 4.0, dict.fromkeys(names, bad), None, "why", False, {}, {}, {}, None)
    lines = advice.table().splitlines()
    assert all(any(name.rpartition(", ")[0] in line and "836.00" in line for line in lines) for name in names)
    assert "Sorted" not in advice.table()

    path = tmp_path / "log.csv"
    rows = [f"{k},{'ab'[k % 2]},{k + 1.5},1" for k in range(100)]
    rows[5] = "-3.0,b,6.5,1"
    path.write_text("\n".join(["arrival_s,server,end_s,cost", *rows]))
    assert "1 row arrives before the row above, in line 7: '-3.0' after '4'" in advise(RequestLog.read(path)).table()
    path.write_text("\n".join(["arrival_s,server,end_s,cost", *reversed(rows)]))
    assert not RequestLog.read(path).out_of_order  # another order, such as that of ends


def test_rows_that_stand_twice_are_told_of_and_count(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"{k},{'ab'[k % 2]},{k + 1.5},1,r{k}" for k in range(100)]
    told = {}
    for name, more in {"none": [], "one": rows[3:4], "some": [*rows[3:6], rows[3]]}.items():
        path.write_text("\n".join(["arrival_s,server,end_s,cost,note", *rows, *more]))
        log = RequestLog.read(path)
        assert (len(log), log.repeated) == (100 + len(more), len(more))
        told[name] = " ".join(advise(log).table().split())
    assert "repeat" not in told["none"]
    assert " 1 row repeats a row of the log, cell by cell, and each counts as a request: if" in told["one"]
    assert " 4 rows repeat rows of the log, cell by cell" in told["some"]


def test_the_start_is_the_later_of_arrival_and_the_end_before(tmp_path: Path) -> None:
    known = RequestLog.read(hidden(tmp_path, 5, count=300, starts=True).path)
    (tmp_path / "guessed").mkdir()
    guessed = RequestLog.read(hidden(tmp_path / "guessed", 5, count=300).path)
    assert (known.started, guessed.started) == (True, False)
    assert guessed.start_s == pytest.approx(known.start_s)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("arrival_s,server,cost\n0,a,1\n", "end_s"),
        ("arrival_s,server,end_s,cost\n0,a,x,1\n", "line 2, column 'end_s' must be a number, got 'x'"),
        ("arrival_s,server,end_s,cost\n5,a,1,1\n", "line 2, column 'end_s' must not be below arrival_s (5), got '1'"),
        ("arrival_s,server,end_s,cost\n0,,1,1\n", "line 2, column 'server' must name a server, got ''"),
        ("arrival_s,server,end_s,steps\n0,a,1,0\n", "line 2, column 'steps' must be from 1 to"),
        ("arrival_s,server,end_s,cost,start_s\n0,a,1,1,2\n", "column 'start_s' must lie between arrival_s and end_s"),
        (
            "arrival_s,server,end_s,cost\n1700000000,a,1700000001,1\n0,a,1,1\n",
            "line 2, column 'arrival_s' must be at most 366 days after the arrival '0' in line 3, got '1700000000'",
        ),
        ("arrival_s,server,end_s,cost\n0,a,1e300,1\n", "column 'end_s' must be at most 366 days after the arrival '0'"),
        ("arrival_s,server,end_s,cost\n0,a,,1\n", "has no request that was answered"),
        (
            "arrival_s,server,end_s,cost\n0,a,1,1\n",
            "has 1 answered requests, too few to compare rules; at least 100 are needed",
        ),
        ("arrival_s,server,end_s,cost\n" + "0,a,1,1\n" * 100, "names one server, a; there is nothing to choose"),
    ],
)
def test_a_log_that_says_nothing_is_one_sentence(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    assert main(["advise", str(path)]) == 2
    assert says in capsys.readouterr().err


def test_failed_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("arrival_s,server,end_s,cost,status\n0,a,1,1,ok\n1,a,2,1,503\n2,b,,1,\n3,b,4,1,200\n")
    log = RequestLog.read(path)
    assert (len(log), log.left_out) == (2, {"without an end": 1, "of another status": 1})


def test_the_command_prints_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = hidden(tmp_path, 0, count=1_500).path
    assert main(["advise", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["named"] in told["verdicts"]
    assert told["requests"] == 1_500
    assert main(["advise", str(path)]) == 0
    assert "Go back when the mean delay" in capsys.readouterr().out


def test_nothing_is_read_of_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        RequestLog.read(tmp_path / "none.csv")


def fleet_file(folder: Path, *workers: dict[str, object]) -> Path:
    """A workers file."""
    path = folder / "workers.json"
    path.write_text(json.dumps({"workers": list(workers)}))
    return path


def test_a_fleet_with_other_servers_is_advised_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without gpu0 and with a new one, half as fast as the fastest: the truth is played with just these servers."""
    log = hidden(tmp_path, 0, count=1_500, rule="least-outstanding", load=0.5)
    names, speeds = RequestLog.read(log.path).servers, 1 / log.arrivals.expected_s.mean(0)
    kept = [int(name[3:]) for name in names if name != "gpu0"]
    path = fleet_file(tmp_path, *({"name": f"gpu{j}"} for j in kept), {"name": "new", "speed": 0.5})
    advice = advise(RequestLog.read(log.path), fleet=AdvisedFleet.read(path))
    assert advice.gone == ("gpu0",)
    assert advice.told == pytest.approx({"new": 0.5})
    new = log.arrivals.expected_s * speeds  # as fast as one of speed 1 would be
    columns = [log.arrivals.expected_s[:, j] for j in kept] + [2 * new.mean(1) / speeds.max()]
    luck = log.arrivals.service_s[:, :1] / log.arrivals.expected_s[:, :1]
    expected = np.stack(columns, -1)
    true = Arrivals(log.arrivals.arrival_s, expected * luck, expected, cost=log.arrivals.cost)
    for name in ("least-finish, on arrival", "shortest-first:cap=6, held"):
        verdict = advice.verdicts[name]
        assert verdict.mean_s == pytest.approx(simulate(true, RULES[name]).delay_s.mean(), rel=0.1)
        assert verdict.extrapolated > 0.1
    assert main(["advise", str(log.path), "--fleet", str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Not in the fleet, so no rule uses them: gpu0." in shown
    assert "new 0.5 times as fast as its fastest server, as told, not measured" in shown


def test_a_fleet_tells_how_many_requests_a_server_works_on_at_once(tmp_path: Path) -> None:
    """Which a log without starts does not."""
    log = RequestLog.read(hidden(tmp_path, 2, count=1_500, rule="least-outstanding", load=0.8, seats=2).path)
    workers = [{"url": f"http://{name}", "slots": 2} for name in log.servers]
    advice = advise(log, fleet=AdvisedFleet.read(fleet_file(tmp_path, *workers)))
    assert advice.replayed_mean_s == pytest.approx(advice.recorded_mean_s, rel=0.02)
    assert advice.named is not None


def test_where_the_log_tells_starts_its_own_decisions_keep_its_own_seats(tmp_path: Path) -> None:
    """A fleet of twice the seats is better under every good rule, and that is no fault of the log's."""
    log = RequestLog.read(hidden(tmp_path, 2, count=1_500, rule="least-outstanding", load=0.8, starts=True).path)
    own = advise(log)
    workers = [{"name": name, "slots": 2} for name in log.servers]
    more = advise(log, fleet=AdvisedFleet.read(fleet_file(tmp_path, *workers)))
    assert more.replayed_mean_s == own.replayed_mean_s == pytest.approx(own.recorded_mean_s, rel=0.02)
    assert set(more.seats.values()) == {2}
    assert more.seats_before == dict.fromkeys(log.servers, 1) == more.to_dict()["seats_before"]
    assert f"requests at once differed: {log.servers[0]} 1" in " ".join(more.table().split())
    assert own.seats_before == {}
    name = "least-finish, on arrival"
    assert more.verdicts[name].gain > own.verdicts[name].gain + 0.1


def test_speeds_of_a_scenario_are_its_capacities(tmp_path: Path) -> None:
    log = RequestLog.read(hidden(tmp_path, 1, count=600).path)
    servers = tuple(Server(c, 10.0, name=n) for c, n in ((2.0, log.servers[0]), (1.0, "new")))
    (tmp_path / "fleet.json").write_text(json.dumps(Scenario(1.0, servers).to_dict()))
    advice = advise(log, fleet=AdvisedFleet.read(tmp_path / "fleet.json"))
    assert advice.speeds["new"] == pytest.approx(advice.speeds[log.servers[0]] / 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "must hold 'servers', as a scenario does, or 'workers', either of them a list"),
        ('{"workers": [{"slots": 2}]}', "workers[0] must have a name or a url"),
        ('{"workers": [{"name": "a"}, {"name": "a"}]}', "names the server 'a' twice"),
        ('{"workers": [{"name": "a", "speed": 0}]}', "workers[0].speed must be at least 1e-06, got 0"),
        ('{"workers": [{"name": "a", "slots": 1e12}]}', "workers[0].slots must be at most 1024"),
        ('{"workers": [{"url": "http://["}]}', "workers[0].url must name a host"),
        ('{"workers": [{"url": "http://me:secret@a"}]}', "workers[0].url must "),
        ('{"workers": [{"name": "a", "slots": 1.5}]}', "workers[0].slots must be a whole number, got 1.5"),
        (
            '{"workers": [{"name": "new"}, {"name": "gpu0"}]}',
            "server new is not in the log, so its speed is not known",
        ),
        ('{"workers": [{"name": "gpu0"}]}', "names one server, gpu0"),
    ],
)
def test_a_fleet_that_says_nothing_is_one_sentence(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = hidden(tmp_path, 1, count=200).path
    (tmp_path / "fleet.json").write_text(text)
    assert main(["advise", str(path), "--fleet", str(tmp_path / "fleet.json")]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert "secret" not in told


def test_policies_are_replayed_among_the_rules(tmp_path: Path) -> None:
    """The greedy rule of the offloading problem decides as least finish does, and held as the order alone does."""
    log = RequestLog.read(hidden(tmp_path, 1, count=100).path)
    verdicts = advise(log, policies=["opt-ts"]).verdicts
    assert verdicts["opt-ts, on arrival"].mean_s == pytest.approx(verdicts["least-finish, on arrival"].mean_s)
    assert verdicts["opt-ts, held"].mean_s == pytest.approx(verdicts["shortest-first:cap=6, held"].mean_s)


ROWS = [(0.0, "a", 4.0, 4), (1.25, "a", 6.5, 2), (1.5, "b", 3.0, 2)]


def date(seconds: float, zone: str = "Z") -> str:
    """Of the last day of January, just before midnight."""
    return (datetime(2026, 1, 31, 23, 59, 58) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds") + zone


@pytest.mark.parametrize(
    ("header", "time", "unit"),
    [
        ("arrival_s,server,end_s,cost", str, "s"),
        ("arrival_ms,server,end_ms,cost", lambda x: str(1e3 * x), "s"),
        ("arrival_s,server,end_s,cost", lambda x: str(1e3 * x), "ms"),
        ("arrival_ns,server,end_us,cost", None, "s"),
        ("arrival_s,server,end_s,cost", date, "s"),
        ("arrival_s,server,end_s,cost", lambda x: date(x, "+02:00"), "ms"),
    ],
)
def test_a_log_tells_the_time_as_it_likes(
    header: str, time: Callable[[float], str] | None, unit: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.csv"
    apart = (lambda x: f"{1e9 * x:.0f}", lambda x: f"{1e6 * x:.0f}") if time is None else (time, time)
    path.write_text("\n".join([header, *(f"{apart[0](a)},{s},{apart[1](e)},{c}" for a, s, e, c in ROWS)]))
    log = RequestLog.read(path, unit=unit)
    assert log.arrival_s.tolist() == [0.0, 1.25, 1.5]
    assert log.service_s.tolist() == [4.0, 2.5, 1.5]


def test_columns_may_have_other_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = hidden(tmp_path, 0, count=300).path
    text = path.read_text()
    path.write_text(text.replace("arrival_s,server,end_s", "created_at,gpu,done", 1))
    assert main(["advise", str(path)]) == 2
    error = capsys.readouterr().err
    assert "has no column 'arrival_s' or 'arrival_ms'" in error
    assert "it has created_at, gpu, done" in error
    assert "name that one, such as --columns arrival_s=created_at,server=gpu" in error
    names = {"arrival_s": "created_at", "server": "gpu", "end_s": "done"}
    (tmp_path / "plain.csv").write_text(text)
    mine, plain = RequestLog.read(path, columns=names), RequestLog.read(tmp_path / "plain.csv")
    assert np.array_equal(mine.end_s, plain.end_s)
    assert mine.servers == plain.servers


HEAD = "arrival_s,server,end_s,cost"


@pytest.mark.parametrize(
    ("text", "given", "says"),
    [
        ("at,server,end_s,cost\n0,a,1,1\n", "arrival_s=when", "has no column 'when'; it has at, server, end_s, cost"),
        (f"{HEAD}\n0,a,1,1\n", "model=net", "has no column 'net', which was named for model"),
        (f"{HEAD}\n0,a,1,1\n", "begin=at", "columns has no option 'begin'; there are arrival_s, end_s"),
        ("at,server,end_s,cost\nx,a,1,1\n", "arrival_s=at", "line 2, column 'at' must be a number, got 'x'"),
        (f"{HEAD}\n{date(0)},a,1,1\n", "", "column 'end_s' must be a date and time, as arrival_s is, got '1'"),
        (
            f"{HEAD}\n{date(0)},a,{date(1, '')},1\n",
            "",
            "column 'end_s' must name a time zone, as the first arrival does, got",
        ),
    ],
)
def test_columns_that_tell_nothing_are_one_sentence(
    text: str, given: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    assert main(["advise", str(path), *(["--columns", given] if given else [])]) == 2
    assert says in capsys.readouterr().err
