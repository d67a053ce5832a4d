"""`advise`: would another rule have been better on what a log shows, and by how much?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from diffpolicy._types import Bools, Floats
from diffpolicy.edge.dispatch.advised_fleet import AdvisedFleet
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.held import Held
from diffpolicy.edge.dispatch.moment import Binding, Dispatcher, Moment
from diffpolicy.edge.dispatch.named import make_held
from diffpolicy.edge.dispatch.on_arrival import WEIGHINGS, OnArrival
from diffpolicy.edge.dispatch.outcome import Outcome
from diffpolicy.edge.dispatch.request_log import RequestLog
from diffpolicy.edge.dispatch.service_fit import ServiceFit
from diffpolicy.edge.dispatch.simulate import simulate
from diffpolicy.edge.dispatch.verdicts import SURE, Advice, Verdict
from diffpolicy.errors import InputError

FEW = 1_000
"""Requests below which a log says little."""
BLOCKS = 20
"""Into which a log is cut for an interval: what follows each other is alike."""
T_95 = 2.093
"""Student's t of 19 degrees of freedom, two-sided."""
TAIL = 1.05
"""How much longer the 99th percentile may become under a rule that is named."""
CLOSE = 0.05
"""How far the log's own decisions, replayed with fitted times, may be from its own mean."""
AT_ONCE = 0.02
"""Of the mean service: arrivals so soon after an end may have waited for it."""
HELD = ("first-come", "shortest-first:cap=6", "cost-minus-age:age=0.5", "cost-minus-age:age=1", "pretrained:dispatch")


class Recorded:
    """Sends every request where the log says."""

    holds = False

    def __init__(self, log: RequestLog) -> None:
        self.log = log

    def begin(self, seed: int) -> None:
        """Nothing is drawn. Args: seed: is not read."""

    def decide(self, moment: Moment) -> Binding | None:
        """The recorded server of the request that came first. Args: moment: at least one request waits."""
        return Binding(0, int(self.log.server[moment.number[0]]))


def advise(
    log: RequestLog, *, fleet: AdvisedFleet | None = None, policies: Sequence[str] = (), seed: int = 0
) -> Advice:
    r"""Replays rules on a log's arrivals with times that were fitted to it.

    A request keeps its luck: what it took over what was expected where it ran. Gains are in relation to the log's own
    decisions replayed, so that what the model of the servers has wrong is wrong in both.

    Args:
        log: of one dispatcher. fleet: the servers to advise for; those of the log by default.
        policies: of the offloading problem, such as `price` or `pretrained:live`, that are replayed too, on arrival and
            held; each decision of theirs takes milliseconds. seed: of rules that draw.

    Returns:
        A verdict on each rule, and the name of one that is better, if it is proven that one is.

    Raises:
        InputError: the log has fewer than 100 requests, there is one server, or nobody tells how fast a new one is.

    Example:
        >>> from pathlib import Path
        >>> rows = [f"{k},{'ab'[k % 2]},{k + 1.5},1" for k in range(200)]
        >>> _ = Path("log.csv").write_text("\n".join(["arrival_s,server,end_s,cost", *rows]))
        >>> advise(RequestLog.read("log.csv")).named is None  # two equal servers in turn: nothing is better
        True
    """
    delays_s = log.request_delay_s
    if len(delays_s) < 5 * BLOCKS:
        raise InputError(
            f"{log.name} has {len(delays_s)} answered requests, too few to compare rules; at least {5 * BLOCKS} are "
            "needed"
        )
    names = log.servers if fleet is None else tuple(server.name for server in fleet.servers)
    if len(names) < 2:
        whose = log.name if fleet is None else fleet.name
        raise InputError(f"{whose} names one server, {names[0]}; there is nothing to choose")
    known = {} if fleet is None else {s.name: s.seats for s in fleet.servers if s.seats is not None}
    of_log = log.seats
    if not log.started:  # then the fleet alone can tell; where the log does, its servers were as it shows them
        of_log = [known.get(name, count) for name, count in zip(log.servers, of_log, strict=True)]
    log = log.with_seats(of_log)
    fit = ServiceFit.of(log)
    recorded = _arrivals(log, fit.seconds, fit)
    base = simulate(recorded, Recorded(log), seats=of_log, seed=seed)
    seconds, unknown = fit.seconds, fit.extrapolated
    if fleet is not None:
        seconds, unknown = fleet.seconds(log.servers, seconds, unknown)
    arrivals = recorded if fleet is None else _arrivals(log, seconds, fit)
    by_name = dict(zip(log.servers, of_log, strict=True))
    seats = [known.get(name, by_name.get(name, 1)) for name in names]
    rules: dict[str, Dispatcher] = {f"{name}, on arrival": OnArrival(name) for name in WEIGHINGS}
    rules |= {f"{name}, held": make_held(name) for name in HELD}
    if policies:
        from diffpolicy.edge.dispatch.advised_policies import policy_rules

        rules |= policy_rules(policies, arrivals, seed)
    outcomes = {name: simulate(arrivals, rule, seats=seats, seed=seed) for name, rule in rules.items()}
    verdicts = {name: _verdict(unknown[log.kind, x.server], fit.error, base, x) for name, x in outcomes.items()}
    verdicts = dict(sorted(verdicts.items(), key=lambda item: item[1].mean_s))
    tail = TAIL * float(np.percentile(base.request_delay_s, 99))
    fair = [name for name, v in verdicts.items() if v.proven and v.p99_s <= tail]
    close = abs(base.request_delay_s.mean() / delays_s.mean() - 1) <= CLOSE
    named = fair[0] if fair and close else None
    speed = dict(zip(names, _speed(seconds), strict=True))
    mean_s, fastest_s = np.exp(np.log(seconds).mean(0)), float(np.exp(np.log(fit.seconds).mean(0)).min())
    return Advice(
        log.name,
        len(delays_s),
        len(log.servers),
        float(delays_s.mean()),
        float(np.percentile(delays_s, 99)),
        float(base.request_delay_s.mean()),
        verdicts,
        named,
        _why(log, named, verdicts, rules) if close else _far(log, base),
        _closed_loop(log),
        speed,
        dict(zip(names, seats, strict=True)),
        log.left_out,
        None if named is None else _roll_back(outcomes[named]),
        tuple(name for name in log.servers if name not in names),
        {name: fastest_s / float(x) for name, x in zip(names, mean_s, strict=True) if name not in log.servers},
        {name: count for name, count in by_name.items() if known.get(name, count) != count},
        len(log) - len(delays_s),
        log.out_of_order,
        log.repeated,
    )


def _arrivals(log: RequestLog, seconds: Floats, fit: ServiceFit) -> Arrivals:
    """The log's requests with their times on every server. Args: seconds: of each kind, `[kinds, S]`."""
    expected = seconds[log.kind]
    luck = log.service_s / fit.seconds[log.kind, log.server]
    service = expected * luck[:, None].clip(1e-3, 1e3)
    return Arrivals(log.arrival_s, service, expected, cost=log.size, kind=log.kind, request=log.request)


def _verdict(unknown: Bools, off: float, base: Outcome, outcome: Outcome) -> Verdict:
    """A rule beside the log's own decisions. Args: unknown: whose time is extrapolated, `[K]`. off: by how much."""
    ours, theirs = _blocks(outcome.request_delay_s), _blocks(base.request_delay_s)
    ratio = float(outcome.request_delay_s.mean() / base.request_delay_s.mean())
    # of the logarithm of the ratio, so that no delay below 0 is thought possible
    error = (ours / ours.mean() - theirs / theirs.mean()).std(ddof=1) / BLOCKS**0.5
    share = float((outcome.service_s * unknown).sum() / outcome.service_s.sum())
    wide = float(np.exp(T_95 * error) * (1 + share * max(off, 0.1)))
    mean, p99 = float(outcome.request_delay_s.mean()), float(np.percentile(outcome.request_delay_s, 99))
    return Verdict(mean, p99, 1 - ratio, 1 - ratio * wide, 1 - ratio / wide, share, int(outcome.passes.max()))


def _blocks(values: Floats) -> Floats:
    """Means of blocks of requests one after the other, `[BLOCKS]`."""
    return np.array([part.mean() for part in np.array_split(values, BLOCKS)])


def _why(log: RequestLog, named: str | None, verdicts: Mapping[str, Verdict], rules: Mapping[str, Dispatcher]) -> str:
    """What is advised, in a sentence."""
    few = f" The log has fewer than {FEW:,} requests." if log.request[-1] + 1 < FEW else ""
    if named is None:
        best = next(iter(verdicts))
        v = verdicts[best]
        why = [
            *(["the interval of its gain includes 0"] if v.low <= 0 else []),
            *([f"most of its times are extrapolated ({v.extrapolated:.0%})"] if v.extrapolated > SURE else []),
        ] or [f"its 99th percentile may be longer by more than {TAIL - 1:.0%}"]
        return f"No rule is named: of {best}, the best by its mean, {' and '.join(why)}.{few}"
    v = verdicts[named]
    held = " Requests wait at the dispatcher until a server is free." if isinstance(rules[named], Held) else ""
    return f"{named}: {v.gain:.0%} off the mean delay, at least {v.low:.0%}.{held}{few}"


def _far(log: RequestLog, base: Outcome) -> str:
    """Why nothing is advised where the model of the servers does not hold."""
    unknown = "" if log.started else " A column start_s would tell how many requests a server works on at once."
    return (
        "No rule is named: the log's own decisions, replayed with fitted times, have a mean delay of "
        f"{base.request_delay_s.mean():.2f} s, and the log has {log.request_delay_s.mean():.2f} s. So the servers do "
        "not work as is assumed here, through queues in order and with a fixed time for each request; do they batch, "
        f"or does other work run there?{unknown}"
    )


def _closed_loop(log: RequestLog) -> bool:
    """Whether far more arrivals than by chance come just after an end."""
    ends, gap = np.sort(log.end_s), AT_ONCE * float(log.service_s.mean())
    before = np.searchsorted(ends, log.arrival_s, side="right") - 1
    since = np.where(before >= 0, log.arrival_s - ends[before.clip(0)], np.inf)
    span = max(float(log.end_s.max() - log.arrival_s[0]), 1e-9)
    chance = min(len(log) * gap / span, 1.0)
    return float((since <= gap).mean()) > max(0.5, 3 * chance)


def _speed(seconds: Floats) -> list[float]:
    """Of each server, the fastest being 1. Args: seconds: of each kind, `[kinds, S]`."""
    log_s = np.log(seconds).mean(0)
    return [float(x) for x in np.exp(log_s.min() - log_s)]


def _roll_back(outcome: Outcome, window: int = 200) -> float:
    """The 97.5th percentile of the mean delay of so many requests one after the other."""
    sums = np.cumsum(np.append(0.0, outcome.request_delay_s))
    size = min(window, len(outcome.request_delay_s))
    return float(np.percentile((sums[size:] - sums[:-size]) / size, 97.5))
