"""Late binding: the decision, the account and the simulator, against formulas of queueing and against each other."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffpolicy._types import Floats
from diffpolicy.edge.dispatch import (
    ORDERS,
    Account,
    Arrivals,
    CostMinusAge,
    Dispatcher,
    EarliestDeadline,
    FallsBack,
    FirstCome,
    Held,
    Moment,
    OnArrival,
    ShortestFirst,
    make_held,
    simulate,
)
from diffpolicy.edge.dispatch.drain import drain_s
from diffpolicy.edge.dispatch.held import too_slow
from diffpolicy.edge.dispatch.learned_order import (
    ADDED,
    DECISIONS,
    KEEP,
    RECENT,
    SERVICES,
    WEIGHTS,
    LearnedFile,
    LearnedOrder,
)
from diffpolicy.edge.dispatch.learning import SIMPLE, START, Judge, Recipe, play, train
from diffpolicy.edge.dispatch.several import simulate_several
from diffpolicy.edge.dispatch.training_fleets import known_fleets, random_fleet
from diffpolicy.edge.scenario.availability import Availability, Timeline
from diffpolicy.edge.workload.seeds import Stream
from diffpolicy.errors import InputError

COLUMNS = ("server", "bound_s", "start_s", "finish_s", "passes", "refused_s", "dead_s", "sendings")
MIX_S = np.array([1.0, 2.0, 4.0, 12.0])
CASES: list[tuple[int | list[int], float, float]] = [(1, 0.0, 0.0), (2, 0.1, 0.3), ([1, 3, 2], 0.05, 0.0)]
SHARES = np.array([0.3, 0.3, 0.3, 0.1])


def poisson(count: int, load: float, speeds: tuple[float, ...] = (1.0,), seed: int = 0) -> Arrivals:
    """Requests of four kinds at a load of servers of given speeds."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(len(MIX_S), count, p=SHARES)
    arrival = np.cumsum(rng.exponential(MIX_S @ SHARES / (load * sum(speeds)), count))
    return Arrivals(arrival, MIX_S[kind, None] / np.array(speeds), cost=MIX_S[kind], kind=kind)


def odd(count: int, seed: int, parts: bool) -> Arrivals:
    """Requests with everything that they may have: models, servers that cannot run them, links, parts, luck."""
    rng = np.random.default_rng(seed)
    base = rng.choice(MIX_S, count)
    expected = base[:, None] / rng.choice([0.5, 1.0, 2.0], 3) * rng.uniform(0.8, 1.2, (count, 3))
    expected[rng.random((count, 3)) < 0.15] = np.inf
    expected[~np.isfinite(expected).any(-1)] = 3.0
    arrival = np.cumsum(rng.exponential(1.5, count))
    arrivals = Arrivals(
        arrival,
        expected * np.exp(0.3 * rng.standard_normal((count, 1))),
        expected,
        rng.random((count, 3)),
        base,
        model=rng.integers(0, 2, count),
        switch_s=rng.random(3),
        cold_s=rng.random(3),
        deadline_s=np.where(rng.random(count) < 0.5, arrival + 20, np.inf),
        weight=rng.uniform(0.5, 2, count),
    )
    return arrivals.split(rng.integers(1, 4, count)) if parts else arrivals


def test_one_server_waits_as_pollaczek_and_khinchine_say() -> None:
    """First come: lambda E[S^2] / (2 (1 - rho))."""
    load, arrivals = 0.7, poisson(60_000, 0.7)
    rate = load / (MIX_S @ SHARES)
    wait = rate * (MIX_S**2 @ SHARES) / (2 * (1 - load))
    outcome = simulate(arrivals, Held(FirstCome()))
    assert (outcome.start_s - arrivals.arrival_s).mean() == pytest.approx(wait, rel=0.05)
    assert np.array_equal(outcome.finish_s, simulate(arrivals, OnArrival("least-finish")).finish_s)


def test_shortest_first_waits_as_its_formula_says() -> None:
    """Kind x: lambda E[S^2] / 2 / ((1 - rho below x) (1 - rho up to x)), first come within a kind."""
    load, arrivals = 0.7, poisson(60_000, 0.7)
    rate, share = load / (MIX_S @ SHARES), MIX_S * SHARES
    upto = np.cumsum(share) * rate
    waits = rate * (MIX_S**2 @ SHARES) / 2 / ((1 - upto) * (1 - np.append(0, upto[:-1])))
    outcome = simulate(arrivals, Held(ShortestFirst()))
    measured = [(outcome.start_s - arrivals.arrival_s)[arrivals.kind == k].mean() for k in range(4)]
    assert measured == pytest.approx(waits, rel=0.1)


@pytest.mark.parametrize("cap", [0, 1, 3, 6])
def test_a_cap_is_reached_and_never_passed_on_one_queue(cap: int) -> None:
    outcome = simulate(poisson(4_000, 0.9), Held(ShortestFirst(), cap=cap))
    assert outcome.passes.max() == cap


@pytest.mark.parametrize("order", ["highest-response-ratio", "cost-minus-age", "shortest-first"])
def test_a_cap_holds_for_every_order_and_unlike_servers(order: str) -> None:
    held = make_held(f"{order}:cap=4,price=3")
    assert simulate(poisson(3_000, 0.85, (2.0, 1.0, 0.5, 0.5)), held).passes.max() == 4


def test_first_come_passes_nobody() -> None:
    outcome = simulate(poisson(2_000, 0.9, (1.0, 1.0)), Held(FirstCome(), price=None))
    assert outcome.passes.max() == 0
    assert outcome.refused_s.max() == 0  # nobody waits while a server is free


def test_a_slow_server_is_refused_only_while_waiting_is_worth_it() -> None:
    """Its 9 s against 2 + 1 on the fast one, and 2 x (time in which both do what waits)."""
    alone = Moment.of(service_s=[[1.0, 9.0]], wait_s=[0.0], starts_s=[2.0, 0.0])
    assert too_slow(alone, price=2.0).tolist() == [[False, True]]
    assert Held(price=2.0).decide(alone) is None
    assert Held(price=None).decide(alone) == (0, 1)
    # eight more: 9 x 1 / (1 + 1/9) = 8.1 s of work, so that 9 < 3 + 16.2
    many = Moment.of(service_s=[[1.0, 9.0]] * 9, wait_s=[0.0] * 9, starts_s=[2.0, 0.0])
    assert not too_slow(many, price=2.0).any()
    assert too_slow(Moment.of(service_s=[[9.0, 1.0]], wait_s=[0.0], starts_s=[2.0, 0.0]), price=0.0).sum() == 0


@pytest.mark.parametrize("shape", [(2, 9), (9, 3), (1, 40), (5, 5)])
def test_who_is_too_slow_is_the_same_whether_requests_or_servers_are_gone_through(shape: tuple[int, int]) -> None:
    """By the definition, pair for pair; among servers that cannot run a request and equal times, too."""
    drawn = np.random.default_rng(sum(shape))
    for _ in range(50):
        service = drawn.choice([1.0, 1.5, 2.0, 7.0, np.inf], shape) * drawn.choice([1.0, 0.3], shape)
        service[:, 0] = drawn.uniform(1, 9, len(service))
        starts = drawn.choice([0.0, 0.0, 0.7, 3.1], shape[1])
        moment = Moment.of(service_s=service.tolist(), wait_s=[0.0] * shape[0], starts_s=starts.tolist())
        found, worth = too_slow(moment, price=0.5), 0.5 * drain_s(moment.service_s)
        for w, j in np.ndindex(*shape):
            faster = [i for i in range(shape[1]) if moment.free[i] <= 0 and service[w, i] < service[w, j]]
            best = min((starts[i] + service[w, i] for i in faster), default=math.inf)
            assert found[w, j] == (moment.free[j] > 0 and service[w, j] > best + worth)


def test_waiting_for_a_faster_server_starves_nobody_and_pays() -> None:
    arrivals = poisson(6_000, 0.85, (2.0, 1.0, 0.5, 0.5))
    priced = simulate(arrivals, Held(CostMinusAge(0.5), price=2.0))
    greedy = simulate(arrivals, Held(CostMinusAge(0.5), price=None))
    finish = simulate(arrivals, OnArrival("least-finish"))
    assert priced.delay_s.mean() < greedy.delay_s.mean()
    assert priced.delay_s.mean() < 0.9 * finish.delay_s.mean()
    assert 0 < priced.refused_s.max() < 30


def test_the_numbers_of_the_definition_are_those_of_the_compiled_form() -> None:
    pytest.importorskip("numba")
    rules: list[Dispatcher] = [Held(ORDERS[o](), cap, price) for o in ORDERS for cap, price in ((None, None), (3, 2.0))]
    drawn = np.random.default_rng(0).standard_normal((2, len(WEIGHTS)))
    rules += [
        Held(LearnedOrder(w.tolist(), tail=0.7), *of) for w, of in zip(drawn, ((None, 1.0), (3, None)), strict=True)
    ]
    rules += [OnArrival(name) for name in ("least-finish", "least-cost", "least-outstanding", "random")]
    for number, rule in enumerate(rules):
        for case, (seats, dead, lead) in enumerate(CASES):
            arrivals = odd(60, 10 * number + case, parts=case > 0)
            both = [
                simulate(arrivals, rule, seats=seats, dead_s=dead, lead_s=lead, seed=5, compiled=c)
                for c in (True, False)
            ]
            for column in COLUMNS:
                assert np.array_equal(*(getattr(x, column) for x in both)), (rule, case, column)


def test_twelve_servers_are_summed_from_left_to_right_in_both_forms() -> None:
    """NumPy's sums of eight or more are others in their last bits, so a server at the edge of too slow would be too."""
    pytest.importorskip("numba")
    service_s = np.random.default_rng(3).uniform(1.0, 9.0, (40, 12))
    in_turn = 0.0
    for row in service_s.tolist():
        rate = 0.0
        for seconds in row:
            rate += 1 / seconds
        in_turn += 1 / rate
    assert drain_s(service_s) == in_turn != (1 / (1 / service_s).sum(-1)).sum()
    arrivals = poisson(400, 1.0, tuple(np.linspace(0.2, 2.0, 12)))
    both = [simulate(arrivals, Held(ShortestFirst(), price=1.0), compiled=compiled) for compiled in (True, False)]
    assert both[0].refused_s.max() > 0
    for column in COLUMNS:
        assert np.array_equal(*(getattr(x, column) for x in both)), column


def test_a_learned_order_has_no_unit_and_forgets_when_it_begins() -> None:
    """Times and costs in another unit, a power of two: the same bindings, again when it is played again."""
    weights = np.random.default_rng(1).standard_normal(len(WEIGHTS)).tolist()
    a, rule = poisson(400, 0.9, (2.0, 1.0, 0.5)), Held(LearnedOrder(weights), price=2.0)
    scaled = Arrivals(1024 * a.arrival_s, 1024 * a.service_s, cost=a.cost, kind=a.kind)
    servers = [simulate(x, rule, compiled=False).server for x in (a, scaled, a)]
    assert np.array_equal(*servers[:2])
    assert np.array_equal(*servers[1:])


def test_a_learned_order_counts_seats_once_and_those_of_servers_that_are_up() -> None:
    """With a lead a seat is free while its request still ends, and a server that is down has none."""
    shown: list[tuple[list[int], list[int]]] = []

    class Looks(FirstCome):
        def scores(self, moment: Moment) -> Floats:
            shown.append((moment.seats.tolist(), (moment.free + moment.outstanding).tolist()))
            return super().scores(moment)

    simulate(poisson(40, 1.0, (2.0, 1.0)), Held(Looks(), price=None), seats=2, lead_s=1.0)
    assert all(seats == [2, 2] for seats, _ in shown)
    assert any(max(counted) > 2 for _, counted in shown)
    weights = LearnedFile.bundled().weights
    alone = Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0])
    down = Moment.of(service_s=[[4.0, np.inf], [1.0, np.inf]], wait_s=[3.0, 0.5], starts_s=[0.0, 0.0])
    orders = [LearnedOrder(weights), LearnedOrder(weights)]
    for order, moment in zip(orders, (alone, replace(down, seats=np.array([1, 0]))), strict=True):
        order.see(moment)
    assert np.array_equal(orders[0].memory, orders[1].memory)
    arrivals = poisson(300, 0.9, (2.0, 1.0, 0.5))
    pytest.importorskip("numba")
    rule = Held(LearnedOrder(weights), price=None)
    both = [simulate(arrivals, rule, seats=[1, 2, 1], lead_s=0.4, compiled=compiled) for compiled in (True, False)]
    assert np.array_equal(both[0].finish_s, both[1].finish_s)


def test_a_request_that_no_server_can_run_does_not_poison_a_learned_order() -> None:
    rule = Held(LearnedOrder(LearnedFile.bundled().weights), price=None)
    moment = Moment.of(service_s=[[np.inf, np.inf], [1.0, 2.0]], wait_s=[1.0, 0.5], starts_s=[0.0, 0.0])
    assert rule.decide(moment) == (1, 0)
    assert rule.decide(Moment.of(service_s=[[1.0, 2.0]], wait_s=[1.0], starts_s=[0.0, 0.0])) == (0, 0)
    assert rule.decide(Moment.of(service_s=[[np.inf, np.inf]], wait_s=[1.0], starts_s=[0.0, 0.0])) is None
    assert np.isfinite(rule.order.memory).all()  # type: ignore[attr-defined]


def test_a_learned_order_counts_each_request_and_each_change_once() -> None:
    """As `serve` asks: one client after the other, whose numbers are between each other's, again at each tick."""
    order = LearnedOrder(LearnedFile.bundled().weights)
    rows = Moment.of(service_s=[[4.0], [8.0]], wait_s=[3.0, 0.5], starts_s=[0.0])
    first, second = (replace(rows, number=np.array(n)) for n in ([5, 9], [2, 7]))
    for moment in (first, second) * 5:
        order.see(moment)
    assert order.memory[[SERVICES, DECISIONS]].tolist() == [4, 2]
    for _ in range(2):  # one has gone
        order.see(replace(second, outstanding=np.array([1])))
    assert order.memory[[SERVICES, DECISIONS]].tolist() == [4, 3]
    for start in range(10, 3 * RECENT, 2):
        order.see(replace(second, number=np.arange(start, start + 2)))
    services = order.memory[SERVICES]
    assert len(order._known) <= RECENT
    assert services == KEEP


def test_a_learned_order_of_age_without_patience_is_least_finish() -> None:
    """It leaves a slow server free just where least finish, told of all that wait before, would not use it."""
    arrivals = poisson(2_000, 0.85, (2.0, 1.0, 0.5, 0.5))
    learned = LearnedOrder([1e9 * (name == "age") for name in WEIGHTS])
    rules: list[Dispatcher] = [Held(learned, price=None), OnArrival("least-finish")]
    ends = [simulate(arrivals, rule).finish_s for rule in rules]
    assert ends[0] == pytest.approx(ends[1])


def test_what_training_plays_is_what_the_simulator_plays() -> None:
    """Fleets with seats, with models that are loaded, and with many servers."""
    pytest.importorskip("numba")
    from diffpolicy.edge.dispatch.quick import delays

    weights = np.array([START[name] for name in WEIGHTS])
    fleets = [random_fleet(np.random.default_rng(seed), 300) for seed in range(9)]
    assert any(x.arrivals.switch_s.any() for x in fleets)
    assert any(max(x.seats) > 1 for x in fleets)
    for x in fleets:
        outcome = simulate(x.arrivals, Held(LearnedOrder(weights.tolist()), price=None), seats=x.seats)
        assert np.array_equal(delays(x.arrivals, weights, x.seats), outcome.delay_s)


def test_what_training_plays_of_the_simple_rules_is_what_the_simulator_plays() -> None:
    """Fleets with seats, with models that are loaded, and with many servers; with a cap, a price, and without."""
    pytest.importorskip("numba")
    from diffpolicy.edge.dispatch.quick_rules import holds_simply, rule_delays

    named = ("shortest-first:cap=0", "shortest-first:cap=3,price=0.5", "cost-minus-age:age=0.5,price=none")
    rules = [rule for rule in (*SIMPLE.values(), *(make_held(name) for name in named)) if holds_simply(rule)]
    assert len(rules) == 9
    for seed in range(9):
        x = random_fleet(np.random.default_rng(seed), 300)
        for rule in rules:
            outcome = simulate(x.arrivals, rule, seats=x.seats)
            assert np.array_equal(rule_delays(x.arrivals, rule, x.seats), outcome.delay_s), (seed, rule)


def test_a_learned_order_takes_a_slow_server_where_many_usually_wait() -> None:
    """The same moment: one waits and a server is free that is three services slower; what is usual decides."""
    weights = [float(name == "patience when busy") for name in WEIGHTS]
    moment = Moment.of(service_s=[[1.0, 4.0]], wait_s=[0.0], starts_s=[0.5, 0.0])
    decided = []
    for waits in (1, 8):
        order = LearnedOrder(weights)
        order.see(Moment.of(service_s=[[1.6, 1.6]] * waits, wait_s=[0.0] * waits, starts_s=[0.0, 0.0]))
        order.see(replace(moment, number=np.array([waits])))
        decided.append(order.refused(moment)[0].tolist())
    assert decided == [[False, True], [False, False]]


@pytest.mark.parametrize("impatience", [0.0, 5.0])
def test_a_learned_order_refuses_not_all_that_wait_where_every_server_is_free(impatience: float) -> None:
    """Whatever is usual, and whichever servers can run them: they would wait for ever."""
    rng = np.random.default_rng(0)
    order = LearnedOrder([impatience * (name == "impatience") for name in WEIGHTS])
    for _ in range(300):
        shape = int(rng.choice([1, 2, 80])), int(rng.choice([1, 2, 5, 200]))
        service = np.exp(rng.normal(0.0, 3.0, shape))
        service[rng.random(shape) < rng.choice([0.0, 0.7])] = np.inf
        waited = np.sort(rng.exponential(100.0, shape[0]))[::-1]
        moment = Moment.of(service_s=service, wait_s=waited, starts_s=np.zeros(shape[1]))
        order.see(moment)
        assert (moment.runs & ~order.refused(moment)).any() == moment.runs.any()


def test_the_bundled_order_uses_slow_servers_of_a_large_fleet_that_is_busy() -> None:
    """Two on which the mean was a fourth above that of the best simple rule, as patience was divided by the seats."""
    pytest.importorskip("numba")
    for seed in (2004, 2045):
        x = random_fleet(np.random.default_rng(seed), 6_000)
        simple = min(play(x, make_held(name))[0] for name in ("first-come", "cost-minus-age:age=1"))
        assert play(x, make_held("pretrained:dispatch"))[0] - simple < np.log(1.06)


def test_an_order_file_without_the_weight_that_was_added_is_the_order_that_it_was(tmp_path: Path) -> None:
    path = tmp_path / "order.json"
    path.write_text(json.dumps({"weights": {name: 0.5 for name in WEIGHTS if name not in ADDED}}))
    assert LearnedFile.read(path).weights == tuple(0.0 if name in ADDED else 0.5 for name in WEIGHTS)
    path.write_text(json.dumps({"weights": dict.fromkeys(ADDED, 0.5)}))
    with pytest.raises(InputError, match=r"order.json must hold 'weights', one for each of: share"):
        LearnedFile.read(path)


def test_training_tells_good_orders_from_bad_and_gives_the_same_bits(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(9)
    judge = Judge([[x] for x in known_fleets(rng, 2_000)], [random_fleet(rng, 200)], Recipe(tail=0.0))
    good = [START[name] for name in WEIGHTS]
    bad = [-9.0 if name == "share" else 0.0 for name in WEIGHTS]  # the longest first
    assert judge(good)[0] < judge(bad)[0]
    assert (judge(good)[1] < judge(bad)[1])[[0, 1, 3, 4]].all()  # p99 and p99.9
    recipe = Recipe(generations=1, draws=4, random=1, requests=100, streams=1, known=200)
    found = train(recipe)
    assert train(recipe) == found
    path = tmp_path / "order.json"
    path.write_text(found.text())
    assert make_held(f"{path}:tail=2,cap=4") == Held(LearnedOrder(found.weights, 2.0), 4, None)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"order.json must hold 'weights'"):
        make_held(str(path))


def test_the_bundled_order_keeps_the_limits_of_the_tail() -> None:
    """Three equal servers against least cost, four unlike ones against least finish."""
    pytest.importorskip("numba")
    assert make_held("pretrained:dispatch:tail=0.5") == Held(
        LearnedOrder(LearnedFile.bundled().weights, 0.5), None, None
    )
    judge = Judge([[x] for x in known_fleets(np.random.default_rng(8), 30_000)], [], Recipe(front=1.0))
    gain, beyond = judge(LearnedFile.bundled().weights)
    assert gain < np.log(0.76)
    assert beyond.max() < 0.02


def test_dead_time_is_counted_and_hides_behind_a_lead() -> None:
    arrivals = poisson(500, 0.9)
    slow = simulate(arrivals, Held(FirstCome()), dead_s=0.2)
    assert slow.dead_s == pytest.approx(np.full(500, 0.2))
    assert slow.dead_share == pytest.approx(100 / arrivals.service_s.sum())
    early = simulate(arrivals, Held(FirstCome()), dead_s=0.2, lead_s=0.2)
    waited = early.start_s - arrivals.arrival_s > 0.2 + 1e-9
    assert waited.sum() > 300
    assert early.dead_s[waited] == pytest.approx(np.zeros(waited.sum()), abs=1e-6)


def test_parts_of_a_request_are_put_in_order_by_all_that_is_left_of_it() -> None:
    """Two parts of 2 s go behind one request of 3 s, although a part alone is shorter."""
    arrivals = Arrivals([0.0, 0.0, 0.0], [[1.0], [4.0], [3.0]]).split(np.array([1, 2, 1]))
    outcome = simulate(arrivals, Held(ShortestFirst()))
    assert outcome.finish_s.tolist() == [1.0, 6.0, 8.0, 4.0]
    assert outcome.request_delay_s.tolist() == [1.0, 8.0, 4.0]


def test_an_account_knows_when_a_request_would_begin() -> None:
    """Two seats with 4 and 1 s left, and 2 s queued: the next begins after 1 + 2."""
    account = Account([2])
    for number, expected in (("a", 5.0), ("b", 2.0), ("c", 2.0)):
        account.sent(0, number, expected_s=expected, now_s=0.0, cost=expected)
    assert account.starts_s(1.0).tolist() == [3.0]
    assert (account.outstanding.tolist(), account.outstanding_cost.tolist()) == ([3], [9.0])
    account.done(0, "b", now_s=2.5)
    assert account.starts_s(2.5).tolist() == [2.0]  # c began at 2.5, a ends at 5
    assert account.free(2.5).tolist() == [0]
    with pytest.raises(InputError, match="server 0 was not sent request 'b'"):
        account.done(0, "b", now_s=3.0)


def test_an_account_of_one_seat_has_the_bits_of_the_general_form() -> None:
    """Sent, done, foreign work and seats that change, in any order; `starts_s` has what `start_s` has."""
    drawn, account, seats = np.random.default_rng(3), Account([1] * 4), [1] * 4
    sent: list[tuple[int, int]] = []
    now, compared = 0.0, 0
    for k in range(3000):
        now += float(drawn.exponential())
        j = int(drawn.integers(4))
        what = drawn.random()
        if what < 0.5:
            account.sent(j, k, expected_s=float(drawn.exponential(3.0)), now_s=now, cost=float(drawn.random()))
            sent.append((j, k))
        elif what < 0.9 and sent:
            account.done(*sent.pop(int(drawn.integers(len(sent)))), now)
        elif what < 0.95:
            account.foreign(j, len(account.servers[j]) + int(drawn.integers(3)), now)
        elif what > 0.98:
            seats[j] = int(drawn.integers(1, 3))
            account.seat(j, seats[j])
        starts = account.starts_s(now)
        assert account.has_foreign == account.foreign_count.any()
        for i, at in enumerate(account.servers):
            assert starts[i] == account.start_s(i, now)
            foreign = int(account.foreign_count[i])
            assert account.free(now)[i] == max(seats[i] - len(at) - foreign, 0)
            ends = sorted(max(x.begun_s + x.expected_s - now, 0.0) for x in at if x.begun_s is not None)
            if foreign or len(at) < seats[i]:
                continue
            compared += 1
            for waits in at[seats[i] :]:  # each goes to the seat that is free first
                ends = sorted([ends[0] + waits.expected_s, *ends[1:]])
            assert starts[i] == ends[0]
    assert compared > 500


def test_the_cost_of_what_a_server_has_is_the_same_bits_in_all_pythons(monkeypatch) -> None:
    """From 3.12 on `sum` makes up for rounding, as `fsum` does here, so that ties would be decided otherwise."""
    monkeypatch.setattr("diffpolicy.edge.dispatch.account.sum", math.fsum, raising=False)
    account = Account([1])
    for number, cost in enumerate((2.0**53, 1.0, 1.0)):
        account.sent(0, number, expected_s=1.0, now_s=0.0, cost=cost)
    assert account.outstanding_cost.tolist() == [2.0**53]


def test_deadlines_come_before_what_has_none() -> None:
    moment = Moment.of([[1.0]] * 3, [9.0, 2.0, 1.0], [0.0], deadline_s=[np.inf, 8.0, 5.0])
    assert Held(EarliestDeadline()).decide(moment) == (2, 0)


def own_order(moment: Moment) -> np.ndarray:
    """The longest first."""
    return -moment.rest_s


def test_orders_come_by_name_with_options_and_from_a_module() -> None:
    assert make_held("shortest-first:cap=6") == Held(ShortestFirst(), cap=6)
    assert make_held("first-come:price=none") == Held(FirstCome(), price=None)
    outcome = simulate(Arrivals([0.0, 0.0, 0.0], [[1.0], [2.0], [3.0]]), make_held(f"{__name__}:own_order"))
    assert outcome.finish_s.tolist() == [6.0, 5.0, 3.0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shortest", "order 'shortest' is neither one of first-come"),
        ("shortest-first:cap", "options are written key=number, got 'cap'"),
        ("shortest-first:cap=1.5", "cap must be a whole number, got 1.5"),
        ("shortest-first:age=1", "order shortest-first"),
        ("cost-minus-age:age=-1", "age must be at least 0"),
        ("pretrained:live", "order 'pretrained:live' is neither one of first-come"),
        ("pretrained:dispatch:price=2", "order pretrained:dispatch"),
        ("shortest-first:price=x", "options are written key=number, got 'price=x'"),
    ],
)
def test_a_wrong_order_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        make_held(text)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arrival_s": [1.0, 0.0]}, "arrival_s must not decrease, got [1.0, 0.0]"),
        ({"service_s": [[np.inf], [1.0]]}, "request 0 can run on none of the 1 servers"),
        ({"service_s": [[-1.0], [1.0]]}, "service_s must be a number and at least 0, got -1"),
        ({"expected_s": [[1.0]]}, "expected_s must have shape [2, 1], got [1, 1]"),
        ({"expected_s": [[np.inf], [1.0]]}, "expected_s must be infinite just where service_s is"),
        ({"weight": [0.0, 1.0]}, "weight must be finite and above 0, got 0"),
        ({"model": [0.5, 1]}, "model must be 2 whole numbers of at least 0"),
    ],
)
def test_wrong_arrivals_are_refused_in_one_sentence(changes: dict[str, object], says: str) -> None:
    good: dict[str, object] = {"arrival_s": [0.0, 1.0], "service_s": [[1.0], [1.0]]}
    with pytest.raises(InputError) as error:
        Arrivals(**(good | changes))  # type: ignore[arg-type]
    assert says in str(error.value)


class Never:
    """Binds nobody."""

    holds = True

    def begin(self, seed: int) -> None: ...

    def decide(self, moment: Moment) -> None: ...


def test_a_dispatcher_that_never_binds_is_told_so() -> None:
    with pytest.raises(InputError, match="leaves 1 requests waiting though every server is free"):
        simulate(Arrivals([0.0], [[1.0]]), Never())


def test_an_order_that_is_no_number_is_refused() -> None:
    class Nothing:
        def scores(self, moment: Moment) -> np.ndarray:
            return moment.rest_s * np.nan

    with pytest.raises(InputError, match="an order must give a number for each of 1 requests on each of 1 servers"):
        simulate(Arrivals([0.0], [[1.0]]), Held(Nothing()))


def test_a_decision_loads_no_torch() -> None:
    code = (
        "from diffpolicy.edge.dispatch import Account, Held, Moment\n"
        "import sys\n"
        "Held().decide(Moment.of([[1.0, 2.0]], [0.0], [0.0, 0.0]))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_account_counts_the_work_of_others() -> None:
    """Own requests of 4 s on average; what the server says above one's own takes a seat for as long."""
    account = Account([2, 1], lead_s=0.5)
    account.sent(0, "a", expected_s=4.0, now_s=0.0)
    assert [account.foreign(0, running, now_s=1.0) for running in (1, 3, 2)] == [0, 2, 1]
    assert account.foreign(1, 1, now_s=1.0, own=1) == 0  # a report that crossed an answer
    assert (account.foreign_count.tolist(), account.foreign_seen) == ([1, 0], 2)
    assert account.free(1.0).tolist() == [0, 1]
    assert account.starts_s(1.0).tolist() == [3.0, 0.0]
    assert account.starts_s(2.0).tolist() == [2.0, 0.0]
    assert account.free(3.6).tolist() == [1, 1]  # its own ends within the lead
    account.foreign(0, 3, now_s=4.0)
    account.done(0, "a", now_s=4.0)
    assert account.starts_s(4.0).tolist() == [1.0, 0.0]  # of two foreign ones, from 1 and from 4 s
    account.foreign(0, 0, now_s=4.0)
    assert (account.free(4.0).tolist(), account.foreign_seen) == ([2, 1], 3)


@pytest.mark.parametrize(("speeds", "share"), [((1.0, 1.0, 1.0), 0.05), ((2.0, 1.0, 0.5, 0.5), 0.3)])
def test_who_falls_back_loses_nothing_to_foreign_work(speeds: tuple[float, ...], share: float) -> None:
    """Against least finish that sees the same counts; where foreign work is rare, something is gained in between."""
    arrivals = poisson(500, 0.85, speeds)
    of = (np.random.default_rng(0).random(len(arrivals)) < share).astype(np.int64)
    falls, delays = FallsBack(Held(ShortestFirst(), cap=6)), []
    for rule in (falls, OnArrival("least-finish")):
        outcome = simulate_several(arrivals, [rule, OnArrival("least-finish")], sees_counts=True, of=of)
        delays.append([outcome.delay_s[of == k].mean() for k in (0, 1)])
    assert 0 < falls.times <= falls.bound < (of == 0).sum()
    assert delays[0][0] <= (1.02 if share > 0.1 else 0.97) * delays[1][0]
    assert delays[0][1] <= 1.02 * delays[1][1]  # nor do the others lose


def test_nothing_falls_back_where_all_work_is_ones_own() -> None:
    arrivals = poisson(200, 0.85, (1.0, 2.0))
    falls = FallsBack(Held(CostMinusAge(0.5)))
    assert np.array_equal(simulate(arrivals, falls).delay_s, simulate(arrivals, falls.held).delay_s)
    assert (falls.times, falls.bound) == (0, 0)


def timelines(*servers: Availability | None, seed: int = 0) -> list[Timeline]:
    """When servers are up in an episode."""
    return [Timeline(x, seed, Stream.EVALUATION, 0, a) for a, x in enumerate(servers)]


def test_what_a_server_has_when_it_fails_is_sent_again_in_order_of_arrival() -> None:
    """Of 5 s each, on a server that is down from 7 to 10 s: it strikes the second, which then goes before the third."""
    arrivals = Arrivals([0.0, 1.0, 8.0], [[5.0]] * 3)
    for rule in (Held(FirstCome()), OnArrival("least-finish")):
        outcome = simulate(arrivals, rule, outages=timelines(Availability(down_s=((7.0, 10.0),))))
        assert outcome.finish_s.tolist() == [5.0, 15.0, 20.0]
        assert outcome.sendings.tolist() == [1, 2, 1]
    beside = Arrivals([0.0, 1.0, 8.0], [[5.0, np.inf], [5.0, 9.0], [5.0, np.inf]])
    outcome = simulate(beside, Held(FirstCome()), outages=timelines(Availability(down_s=((0.0, 4.0),)), None))
    assert (outcome.server.tolist(), outcome.finish_s.tolist()) == ([0, 1, 0], [9.0, 10.0, 14.0])


@pytest.mark.parametrize("rule", [make_held("shortest-first:cap=6"), OnArrival("least-finish"), OnArrival("random")])
def test_all_is_done_while_servers_are_up(rule: Dispatcher) -> None:
    arrivals = poisson(450, 0.5, (1.0, 1.0, 0.5))
    mostly, never = Availability(mtbf_s=150.0, mttr_s=20.0), timelines(None, None, None)
    outcome = simulate(arrivals, rule, outages=timelines(mostly, mostly, None))
    assert outcome.service_s == pytest.approx(arrivals.service_s[np.arange(450), outcome.server])
    assert (outcome.sendings > 1).sum() > 5
    up = timelines(mostly, mostly, None)
    for start, end, server in zip(outcome.start_s, outcome.finish_s, outcome.server, strict=True):
        assert up[server].back_s(start) == start
        assert up[server].failure_s(start, end - 1e-6) == np.inf
    for server in range(3):
        order = np.sort(outcome.start_s[outcome.server == server]), np.sort(outcome.finish_s[outcome.server == server])
        assert (order[0][1:] >= order[1][:-1] - 1e-9).all()
    both = [simulate(arrivals, rule, outages=x, seed=3).finish_s for x in (never, None)]
    assert np.array_equal(*both)
