"""What a log says about rules: a verdict on each, and `Advice`, as it is printed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffpolicy._text_table import WIDTH, render

AN_HOUR = 3600.0
"""Mean delay in seconds above which the log's times may be of another unit."""
SURE = 0.5
"""Share of a rule's work that may be extrapolated where it is named."""

WORST = -9.99
"""Gain below which a table says no more than that it is below."""

NOTES = (
    "bound: at once when a request arrives, or when a server is free; the order says which waiting request goes "
    "first. unsure: share of the work whose time is extrapolated, from fewer than 20 samples of a server and kind. "
    "passes: the largest number of later arrivals that went before a request (cap=6: never more; age: weight of a "
    "second waited)."
)


@dataclass(frozen=True)
class Verdict:
    """How a rule would have done on a log's arrivals.

    Args:
        mean_s, p99_s: of the delay, predicted, seconds. gain: share of the recorded rule's mean that it saves.
        low, high: a 95 % interval of the gain, paired by blocks of requests, wider where times are extrapolated.
        extrapolated: share of its work that ran where fewer than 20 samples tell how long it takes.
        most_passes: later arrivals that went before a request.

    Example:
        >>> Verdict(4.0, 9.0, 0.2, 0.1, 0.3, 0.0, 6).proven
        True
    """

    mean_s: float
    p99_s: float
    gain: float
    low: float
    high: float
    extrapolated: float
    most_passes: int

    @property
    def proven(self) -> bool:
        """Whether the interval excludes that nothing is gained, by times most of which are known."""
        return self.low > 0 and self.extrapolated <= SURE


@dataclass(frozen=True)
class Advice:
    """The result of `advise`: how rules would have done on a log's arrivals.

    Args:
        log: its name. requests, servers: their numbers.
        recorded_mean_s, recorded_p99_s: of the log's delays, seconds. replayed_mean_s: of the same decisions replayed
            with the fitted times, which tells how far to trust the rest.
        verdicts: by rule. named: the best one that is proven and keeps the tail; None: no other rule is.
        why: of that, in words. closed_loop: whether arrivals seem to wait for answers.
        speeds: of the servers, the fastest being 1, by name. seats: requests that each works on at once, by name.
        left_out: rows that were not answered, by why. roll_back_s: see `to_dict`.
        gone: servers of the log that the fleet does not have. told: speeds of those that only the fleet has, as its
            file tells them, the fastest of the log being 1. seats_before: requests that a server worked on at once in
            the log, by name, where the fleet has it work on another number.
        more_parts: rows of the log beyond one a request, where images of a request were sent one by one.
        out_of_order: of a few rows that arrive before the row above; empty where there is none.
        repeated: rows of the log whose cells are all those of a row before.

    Example:
        >>> known = {}, None, "nothing", False, {"a": 1.0}, {"a": 1}, {}, None
        >>> Advice("log", 9, 2, 4.0, 9.0, 4.0, *known).named is None
        True
    """

    log: str
    requests: int
    servers: int
    recorded_mean_s: float
    recorded_p99_s: float
    replayed_mean_s: float
    verdicts: Mapping[str, Verdict]
    named: str | None
    why: str
    closed_loop: bool
    speeds: Mapping[str, float]
    seats: Mapping[str, int]
    left_out: Mapping[str, int]
    roll_back_s: float | None
    gone: tuple[str, ...] = ()
    told: Mapping[str, float] = field(default_factory=dict)
    seats_before: Mapping[str, int] = field(default_factory=dict)
    more_parts: int = 0
    out_of_order: str = ""
    repeated: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As `advise --json` prints it; `roll_back_s` is a mean delay of 200 requests at the same load."""
        rules = {name: dict(vars(verdict)) for name, verdict in self.verdicts.items()}
        maps = {name: dict(getattr(self, name)) for name in ("speeds", "seats", "left_out", "told", "seats_before")}
        return {**vars(self), **maps, "gone": list(self.gone), "verdicts": rules}

    def _of_units(self) -> list[str]:
        """A hint where delays are so long that times may be of another unit."""
        if self.recorded_mean_s <= AN_HOUR:
            return []
        return ["A mean delay above an hour is rare: if the log's times are in milliseconds, say so by --unit ms."]

    def _passed_over(self) -> list[str]:
        """Why what stands above the rule that is named is not named."""
        if self.named is None:
            return []
        best = self.verdicts[self.named].gain
        above = [name for name, v in self.verdicts.items() if v.gain > best and v.low > 0 and not v.proven]
        if not above:
            return []
        return [f"Not named, since more than {SURE:.0%} of the work is unsure: {'; '.join(above)}."]

    def table(self) -> str:
        """As `advise` prints it."""
        rows = [
            [
                name.rpartition(", ")[0],
                "when free" if name.endswith("held") else "at once",
                f"{v.mean_s:.2f}",
                f"{v.p99_s:.1f}",
                _percent(v.gain),
                f"{_percent(v.low)} .. {_percent(v.high)}",
                f"{v.extrapolated:.0%}",
                str(v.most_passes),
            ]
            for name, v in self.verdicts.items()
        ]
        title = (
            f"{self.log}: {self.requests:,} requests on {self.servers} servers, mean delay {self.recorded_mean_s:.2f} "
            f"s, p99 {self.recorded_p99_s:.1f} s; replayed with fitted times {self.replayed_mean_s:.2f} s"
        )
        head = ["rule", "bound", "mean s", "p99", "gain", "95 % interval", "unsure", "passes"]
        lines = [render(title, head, rows), NOTES]
        if self.left_out:
            lines.append(
                "Left out: " + ", ".join(f"{n:,} row{'s' * (n != 1)} {why}" for why, n in self.left_out.items()) + "."
            )
        if self.out_of_order:
            lines.append(f"Sorted by arrival, but {self.out_of_order}. A wrong time makes delays long.")
        if self.repeated:
            lines.append(
                f"{self.repeated:,} row{'s repeat rows' if self.repeated > 1 else ' repeats a row'} of the log, cell by"
                " cell, and each counts as a request: if it was joined twice, take them out."
            )
        if self.more_parts:
            parts = self.requests + self.more_parts
            lines.append(f"Delays are of whole requests, which were sent in {parts:,} parts; passes are of parts.")
        if several := [f"{name} {n}" for name, n in self.seats.items() if n > 1]:
            lines.append(f"Requests that a server works on at once: {', '.join(several)}; of all others 1.")
        if self.gone:
            lines.append(f"Not in the fleet, so no rule uses them: {', '.join(self.gone)}.")
        if self.told:
            speeds = ", ".join(f"{name} {speed:.3g}" for name, speed in self.told.items())
            lines.append(f"Not in the log: {speeds} times as fast as its fastest server, as told, not measured.")
        if self.seats_before:
            before = ", ".join(f"{name} {n}" for name, n in self.seats_before.items())
            lines.append(f"In the log the number of requests at once differed: {before}.")
        if self.gone or self.told or self.seats_before:
            lines.append("Gains are relative to the log's own decisions on its own servers.")
        lines += self._of_units()
        lines.append(self.why)
        lines += self._passed_over()
        if self.closed_loop:
            lines.append(
                "Requests arrive as soon as others end, as from clients that wait for an answer: under another rule "
                "they would have come at other times, so the gains hold for these arrivals alone."
            )
        if self.roll_back_s is not None:
            lines.append(
                f"Go back when the mean delay of 200 requests at this load exceeds {self.roll_back_s:.2f} s twice in a "
                "row; by chance alone one window in forty does once."
            )
        return "\n".join([lines[0], *(textwrap.fill(line, WIDTH) for line in lines[1:])])


def _percent(gain: float) -> str:
    """A gain as a table shows it: how far below the worst would widen it until names break."""
    return f"{gain:+.1%}" if gain >= WORST else f"< {WORST:.0%}"
