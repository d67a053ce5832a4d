"""`demo`: unlike emulated workers, a dispatcher and a load on this machine, for one rule after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from diffpolicy import _validate as check
from diffpolicy._types import Floats
from diffpolicy.edge.dispatch.arrivals import Arrivals
from diffpolicy.edge.dispatch.simulate import simulate
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.serving.children import Children
from diffpolicy.edge.serving.http_calls import HttpCalls
from diffpolicy.edge.serving.load.plan import Ask, plan
from diffpolicy.edge.serving.load.report import LoadReport, Outcome
from diffpolicy.edge.serving.load.send import send
from diffpolicy.edge.serving.rules import make_policy

GRACE_S = "2"
METRICS_S = 30.0
DEAD = "diffpolicy_dead_time_seconds"


@dataclass(frozen=True)
class Emulated:
    """A worker of the demonstration. Args: profile: of a server. speed: how many times as fast it is."""

    profile: str
    speed: float = 1.0

    @property
    def model(self) -> str:
        """As `worker --model` takes it."""
        return f"emulate:{self.profile}@{self.speed:g}"

    def service_s(self, asks: Sequence[Ask]) -> Floats:
        """Seconds of each request, `[K]`. Args: asks: with sizes and steps."""
        law = ServerProfile.load(self.profile)
        return np.array([law.service_s(a.width or 0, a.height or 0, a.steps or 0, a.images) / self.speed for a in asks])


FLEET = (
    Emulated("mlenergy-h100-sd3-medium"),
    Emulated("mlenergy-a100-sd3-medium"),
    Emulated("mlenergy-a100-sd3-medium", 0.5),
)
"""One fast server, one half as fast, one half as fast again."""


@dataclass(frozen=True)
class Contender:
    """A rule of the demonstration. Args: label: in the table. options: of `serve`, from `--policy` on."""

    label: str
    policy: str
    binding: str = "arrival"
    order: str | None = None

    def options(self) -> tuple[str, ...]:
        """Of `diffpolicy serve`."""
        order = () if self.order is None else ("--order", self.order)
        return ("--policy", self.policy, "--binding", self.binding, *order)


OTHERS = (
    Contender("least work", "least-work"),
    Contender("least outstanding cost (llm-d #2053)", "least-cost"),
    Contender("round robin", "round-robin"),
    Contender("random", "random"),
)


@dataclass(frozen=True)
class Row:
    """What came of a rule.

    Args:
        label: its. report: over HTTP. simulated_s: mean delay of the simulator, seconds.
        dead_s: mean time of a binding in which its worker was not busy, as the dispatcher counts it.
    """

    label: str
    report: LoadReport
    simulated_s: float
    dead_s: float


def load_of(requests: int, load: float, *, warm: int, seed: int, fleet: Sequence[Emulated] = FLEET) -> list[Ask]:
    """Poisson arrivals of the mixed workload at a share of what the fleet can do.

    Args:
        requests: how many, after `warm` more from which rules learn what a request takes. load: share of the capacity.
        seed: of the draws. fleet: that they are meant for.

    Raises:
        InputError: a number is out of range.
    """
    check.number(load, "load", above=0, most=1.5)
    drawn = plan(requests + warm, rate=1.0, seed=seed)
    work = np.stack([worker.service_s(drawn) for worker in fleet], -1)
    rate = load / float((1 / (1 / work).sum(-1)).mean())
    return [Ask(ask.at_s / rate, ask.width, ask.height, ask.steps) for ask in drawn]


async def demonstrate(
    contenders: Sequence[Contender],
    asks: Sequence[Ask],
    *,
    scale: float,
    warm: int,
    seed: int = 0,
    fleet: Sequence[Emulated] = FLEET,
    told: Callable[[str], None] = lambda text: None,
    done: Callable[[Contender, Outcome], None] = lambda contender, outcome: None,
) -> list[Row]:
    """Plays a load on each of some rules, one after the other, on the same workers.

    Args:
        contenders: rules. asks: the load. scale: of time; seconds of the result are divided by it.
        warm: requests at the beginning that do not count. seed: of the dispatcher's draws.
        fleet: workers, each a process. told: takes what is being done. done: takes each outcome as it comes.

    Returns:
        A row a rule, in their order.

    Raises:
        WorkError: a process did not start.
    """
    rows = []
    async with Children() as children:
        urls = []
        for worker in fleet:
            told(f"starting {worker.model}")
            _, ready = await children.start(
                *("worker", "--model", worker.model, "--port", "0", "--queue", str(len(asks))),
                *("--time-scale", repr(scale), "--grace", GRACE_S),
            )
            urls.append(ready["url"])
        for contender in contenders:
            told(f"serving by {contender.label}")
            process, ready = await children.start(
                *("serve", "--workers", ",".join(urls), "--port", "0", "--seed", str(seed), "--grace", GRACE_S),
                *("--queue", str(len(asks)), *contender.options()),
            )
            report = await send(
                ready["url"],
                asks,
                scale=scale,
                done=lambda outcome, contender=contender: done(contender, outcome),  # type: ignore[misc]
            )
            dead_s = await _dead_s(ready["url"]) / scale
            await children.end([process])
            simulated = simulated_s(contender, asks, warm, fleet, seed)
            rows.append(Row(contender.label, _without(report, warm), simulated, dead_s))
    return rows


async def _dead_s(url: str) -> float:
    """Mean dead time of a binding, by the metrics of a service."""
    calls = HttpCalls(1)
    try:
        text = (await calls.fetch("GET", f"{url}/metrics", timeout_s=METRICS_S, most_bytes=2**24)).body.decode()
    finally:
        await calls.aclose()
    total, count = (sum(map(float, re.findall(rf"^{DEAD}_{word}.* (\S+)$", text, re.M))) for word in ("sum", "count"))
    return total / max(count, 1.0)


def _without(report: LoadReport, warm: int) -> LoadReport:
    """What came after the first requests."""
    kept = report.outcomes[warm:]
    ends = [x.ask.at_s + x.delay_s for x in kept]
    return LoadReport(kept, max(ends) - kept[0].ask.at_s if kept else 0.0, report.within_s)


def simulated_s(
    contender: Contender,
    asks: Sequence[Ask],
    warm: int,
    fleet: Sequence[Emulated] = FLEET,
    seed: int = 0,
    *,
    dead_s: float = 0.0,
) -> float:
    """Mean delay of a rule in the simulator, on the same arrivals and with nothing to learn, seconds.

    Args:
        contender: the rule. asks: the load. warm: requests at the beginning that do not count.
        fleet: the workers. seed: of the rule's draws. dead_s: for which a worker is not busy before each request.
    """
    work = np.stack([worker.service_s(asks) for worker in fleet], -1) + dead_s
    size = np.array([(a.width or 0) * (a.height or 0) * (a.steps or 0) / 1e6 for a in asks])
    rule = make_policy(contender.policy, binding=contender.binding, order=contender.order, seed=seed).dispatcher
    outcome = simulate(Arrivals(np.array([a.at_s for a in asks]), work, cost=size), rule, seed=seed)
    return float(outcome.delay_s[warm:].mean())
