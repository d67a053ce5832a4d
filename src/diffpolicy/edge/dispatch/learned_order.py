"""`LearnedOrder`: scores of requests on servers that were learned in the simulator, for fleets of any size."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._types import Bools, Floats, Ints
from diffpolicy.edge.dispatch.drain import drain_s, rates
from diffpolicy.edge.dispatch.moment import Moment
from diffpolicy.errors import InputError

KEEP = 10_000
"""Requests and decisions after which the means that an order remembers forget."""
LEAST_BACKLOG = 0.1
"""Added to the usual backlog, in usual services of all seats: at low load nothing waits, and all is in relation to it.
"""
RESERVED = 64
"""Requests that have a place each in what `soonest_s` imagines; more would make decisions slow and change few."""
WEIGHTS = (
    *("share", "age", "age of a large one", "great age", "great age from"),
    *("passes", "passes from", "passes from, a share"),
    *("slowness", "late", "late from"),
    *("patience", "patience a backlog", "impatience", "patience when busy"),
)
"""What is learned, in this order; see `LearnedOrder`."""
ADDED = ("patience when busy",)
"""What files of earlier versions lack; without it an order decides as it did there."""
(SHARE, AGE, AGE_LARGE, OLD, OLD_FROM, PASSES, PASSES_FROM, PASSES_SHARE, SLOW, LATE, LATE_FROM, PATIENCE, PRICE, PICKY,
 BUSY) = range(len(WEIGHTS))  # fmt: skip
SEEN, SERVICES, SERVICE_S, DECISIONS, BACKLOG_S, CHANGED = range(6)
"""Places of an order's memory: up to which number all are known, of how many the usual service is the mean, and so on;
`CHANGED` is of the compiled form: whether a request arrived, was bound or ended since the last decision."""
RECENT = 20_000
"""Numbers that are known one by one, as those of several clients do not come in order."""


def rough_log2(x: Floats) -> Floats:
    """The logarithm to base 2, straight between powers of two, so that all machines agree on each bit.

    Args:
        x: any shape; what is below 1e-6 counts as that.

    Example:
        >>> rough_log2(np.array([1.0, 3.0, 4.0])).tolist()
        [0.0, 1.5, 2.0]
    """
    mantissa, exponent = np.frexp(x.clip(min=1e-6))
    result: Floats = exponent + 2.0 * mantissa - 2.0
    return result


@dataclass(frozen=True)
class LearnedOrder:
    """A score of request i on server j in which nothing has a unit, so that one set of weights serves all fleets.

    With service e_ij, h_i its harmonic mean over servers, H the running mean of h over requests, n the seats of all
    servers, D the seconds in which all seats do what waits, B the running mean of D over decisions plus H / 10 n,
    c = h_i / H of what is left of the request, b = wait / B, and p = passes / n, the score is

        log2 c + share c - (age + age of a large one x c / (1 + c)) b - great age (b - great age from)+
        - passes (p - passes from - passes from, a share x c)+
        + slowness (e_ij - h_i) / H + late ((wait + e_ij) / B - late from)+ where e_ij > h_i.

    So a short request goes first until a long one is old in relation to the backlog, or was passed too often; a slow
    server gets what is short, and not what would end late there. A free server is refused to a request that would end
    there more than

        patience H / n + patience when busy x (H / n) (B n / H)^2 + patience a backlog x D - impatience x wait

    (at least 0) later than where it ends soonest if all that wait go in order of arrival to where they end soonest.
    With first come and no patience that is least finish, whose tail no rule with a price has where many servers are
    unlike.

    Whoever takes a slow server leaves a fast one to all that come after him until nothing waits, and each of them gains
    about H / n. `B n / H` is how many wait where any does, 1 / (1 - load) in M/M/n. So many wait now, and for each of
    them as many more arrive before the queue is empty: hence its square. It lets slow servers work in a fleet of any
    size whose queue is long, and leaves them free where hardly anybody comes after.

    It remembers H and B, so that nothing needs to be told; `begin` forgets them.

    Args:
        weights: one of each of `WEIGHTS`.
        tail: multiplies waits and passes: the greater it is the shorter the tail and the longer the mean.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> order = LearnedOrder([float(name == "age") for name in WEIGHTS])
        >>> moment = Moment.of(service_s=[[4.0], [1.0]], wait_s=[3.0, 0.5], starts_s=[0.0])
        >>> order.see(moment)
        >>> int(order.scores(moment).argmin())
        1
    """

    name: ClassVar[str] = "learned"
    weights: Sequence[float]
    tail: float = 1.0
    memory: Floats = field(init=False, repr=False, compare=False)
    _known: set[int] = field(init=False, repr=False, compare=False, default_factory=set)
    _backlogs: set[bytes] = field(init=False, repr=False, compare=False, default_factory=set)
    """Of which requests the backlog was taken up since what the servers have changed; the first tells what they have.
    """

    def __post_init__(self) -> None:
        if len(self.weights) != len(WEIGHTS):
            raise InputError(f"weights must be {len(WEIGHTS)} numbers, got {len(self.weights)}")
        object.__setattr__(self, "weights", tuple(check.number(w, "weights") for w in self.weights))
        check.number(self.tail, "tail", least=0)
        object.__setattr__(self, "memory", np.zeros(CHANGED + 1))
        self.begin()

    def begin(self) -> None:
        """Forgets what is usual."""
        self.memory[:] = (-1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        self._known.clear()
        self._backlogs.clear()

    def see(self, moment: Moment) -> None:
        """Takes up what is usual: of each number once, and the backlog once after something arrived, was sent or ended.

        Args:
            moment: of a decision. A request that no server can run now is not taken up, as its service is endless.
        """
        m, each_s = self.memory, _usual_s(moment)
        for number, seconds in zip(moment.number.tolist(), each_s.tolist(), strict=True):
            if number > m[SEEN] and number not in self._known and np.isfinite(seconds):
                self._known.add(number)
                m[SERVICES] = min(m[SERVICES] + 1.0, KEEP)
                m[SERVICE_S] += (seconds - m[SERVICE_S]) / m[SERVICES]
        if len(self._known) > RECENT:
            for number in sorted(self._known)[: RECENT // 2]:
                self._known.remove(number)
                m[SEEN] = number
        # a clock that asks again tells nothing new, and several clients are asked about one after the other
        sent, waits = b"sent" + moment.outstanding.tobytes(), moment.number.tobytes()
        if sent not in self._backlogs or len(self._backlogs) > KEEP:
            self._backlogs.clear()
            self._backlogs.add(sent)
        if waits in self._backlogs:
            return
        self._backlogs.add(waits)
        m[DECISIONS] = min(m[DECISIONS] + 1.0, KEEP)
        m[BACKLOG_S] += (_drain_s(moment) - m[BACKLOG_S]) / m[DECISIONS]

    def scores(self, moment: Moment) -> Floats:
        """The scores, `[W, S]`. Args: moment: as everywhere; `see` has taken it up."""
        w, (usual, backlog), seats = self.weights, self._usual(moment), _seats(moment)
        service = moment.service_s.clip(max=1e300)
        one = _usual_s(moment).clip(max=1e300)[:, None]
        c = one * _parts(moment)[:, None] / usual
        wait = (moment.wait_s * self.tail)[:, None]
        b, p = wait / backlog, (moment.passes * self.tail / seats)[:, None]
        total = rough_log2(c) + w[SHARE] * c
        total = total - (w[AGE] + w[AGE_LARGE] * (c / (1.0 + c))) * b
        total = total - w[OLD] * (b - w[OLD_FROM]).clip(min=0.0)
        total = total - w[PASSES] * (p - w[PASSES_FROM] - w[PASSES_SHARE] * c).clip(min=0.0)
        total = total + w[SLOW] * ((service - one) / usual)
        late = ((wait + service) / backlog - w[LATE_FROM]).clip(min=0.0)
        result: Floats = total + w[LATE] * np.where(service > one * 1.001, late, 0.0)
        return result

    def refused(self, moment: Moment) -> Bools:
        """Which requests go on waiting though a server is free, `[W, S]`. Args: moment: `see` has taken it up."""
        w, (usual, backlog), seats = self.weights, self._usual(moment), _seats(moment)
        worth = w[PATIENCE] * (usual / seats) + w[BUSY] * (backlog * (backlog * seats / usual))
        worth = worth + w[PRICE] * _drain_s(moment)
        worth_s = (worth - w[PICKY] * (moment.wait_s * self.tail)).clip(min=0.0)
        result: Bools = _ends_s(moment) > (self.soonest_s(moment) + worth_s)[:, None]
        return result

    @staticmethod
    def soonest_s(moment: Moment) -> Floats:
        """When each request would end if all went in order of arrival to where they end soonest, `[W]`.

        Args:
            moment: as everywhere. After the first `RESERVED` requests no more room is taken.
        """
        begins, free, found = moment.starts_s.copy(), moment.free.copy(), np.empty(len(moment.wait_s))
        seats = _seats_of(moment)
        for i, service in enumerate(moment.service_s):
            if i == RESERVED:
                found[i:] = (begins + moment.service_s[i:] + moment.link_s[i:]).min(-1)
                break
            ends = begins + service + moment.link_s[i]
            at = int(ends.argmin())
            found[i] = ends[at]
            if free[at] > 1:
                free[at] -= 1
            elif np.isfinite(ends[at]):
                begins[at] += service[at] / max(seats[at], 1)
        return found

    def _usual(self, moment: Moment) -> tuple[float, float]:
        """Seconds of a request and of what waits, as they usually are."""
        usual = max(float(self.memory[SERVICE_S]), 1e-9)
        return usual, float(self.memory[BACKLOG_S]) + LEAST_BACKLOG * usual / _seats(moment)


def _seats_of(moment: Moment) -> Ints:
    """How many seats each server has, int64 `[S]`."""
    if len(moment.seats):
        return moment.seats
    each: Ints = (moment.free + moment.outstanding).clip(min=1)
    return each


def _seats(moment: Moment) -> float:
    """How many seats all servers have together."""
    return max(float(_seats_of(moment).sum()), 1.0)


def _ends_s(moment: Moment) -> Floats:
    """When each request would end on each server if it went there now, `[W, S]`."""
    return moment.starts_s + moment.service_s + moment.link_s


def _parts(moment: Moment) -> Floats:
    """How many parts of each request have not been sent, `[W]`."""
    rest, service = moment.rest_s.min(-1), moment.service_s.min(-1).clip(min=1e-9)
    parts: Floats = np.divide(rest, service, out=np.ones(len(rest)), where=np.isfinite(service)).clip(min=1.0)
    return np.floor(parts + 0.5)


def _usual_s(moment: Moment) -> Floats:
    """The harmonic mean of a request's service over the servers that can run it, infinite where none can, `[W]`."""
    runs = moment.runs.sum(-1)
    result: Floats = np.divide(runs, rates(moment.service_s), out=np.full(len(runs), np.inf), where=runs > 0)
    return result


def _drain_s(moment: Moment) -> float:
    """Seconds in which all seats do what waits and some server can run."""
    servers, runs = int((_seats_of(moment) > 0).sum()), moment.runs.any(-1)
    return drain_s(moment.service_s[runs]) * (servers / _seats(moment)) if runs.any() else 0.0


@dataclass(frozen=True)
class LearnedFile:
    """What a file of a learned order holds. Args: weights: of `LearnedOrder`."""

    weights: tuple[float, ...]

    @classmethod
    def read(cls, path: str | Path) -> LearnedFile:
        """From a file of `diffpolicy train-fleet dispatch`.

        Args:
            path: of the file.

        Raises:
            InputError: it cannot be read, lacks a weight, or one is no number.
        """
        what, data = f"order file {Path(path).name}", check.read_json(Path(path), "order file")
        weights: Any = data.get("weights") if isinstance(data, Mapping) else None
        if isinstance(weights, Mapping):
            weights = {**dict.fromkeys(ADDED, 0.0), **weights}
        if not isinstance(weights, Mapping) or set(weights) != set(WEIGHTS):
            raise InputError(f"{what} must hold 'weights', one for each of: {', '.join(WEIGHTS)}")
        with check.within(what):
            return cls(tuple(check.number(weights[name], name) for name in WEIGHTS))

    @classmethod
    def bundled(cls) -> LearnedFile:
        """That of `pretrained:dispatch`."""
        with resources.as_file(resources.files("diffpolicy.edge") / "pretrained" / "dispatch" / "order.json") as path:
            return cls.read(path)

    def text(self) -> str:
        """As it is written."""
        return json.dumps({"weights": dict(zip(WEIGHTS, self.weights, strict=True))}, indent=2) + "\n"
