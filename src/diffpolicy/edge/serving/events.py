"""What happens to requests and workers, as it is told to whoever listens: metrics, the log, the live page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Arrived:
    """A request was taken, or a part of one.

    Args:
        time_s: of the dispatcher's clock. model, width, height, steps, images: as told. client: whose.
        request: number of the request of which it is a part, "" where it is a whole one.
    """

    number: str
    time_s: float
    model: str
    width: int | None
    height: int | None
    steps: int | None
    images: int
    client: str
    request: str = ""


@dataclass(frozen=True)
class Joined:
    """A request whose images were sent one by one has ended.

    Args:
        status: of HTTP. images: how many it has. delay_s: since it arrived.
    """

    number: str
    time_s: float
    status: int
    images: int
    delay_s: float


@dataclass(frozen=True)
class Refused:
    """A request was not taken. Args: status: of HTTP. code: a word for why."""

    number: str
    time_s: float
    status: int
    code: str


@dataclass(frozen=True)
class Bound:
    """A request was sent to a worker.

    Args:
        wait_s: since it arrived. expected_s: that it should take there. decision_s: that deciding took.
        by: the rule or policy that decided. attempt: the how manyeth binding of the request it is, from 1.
        lag_s: since what let it go, its arrival or the end of another: for so long the dispatcher made it wait.
    """

    number: str
    time_s: float
    server: str
    wait_s: float
    expected_s: float
    decision_s: float
    by: str
    attempt: int = 1
    lag_s: float = 0.0


@dataclass(frozen=True)
class Shadowed:
    """What the policy in the shadow would have done when a request was bound. Args: would: in words."""

    number: str
    time_s: float
    would: str


@dataclass(frozen=True)
class Answered:
    """A worker answered, and its answer goes to the client.

    Args:
        status: of HTTP. start_s: when it began there, of the dispatcher's clock. service_s: for which it kept the
            worker busy. delay_s: since it arrived. expected_s: that the service should take.
        freed_s: when the worker was known to be done with it, before the whole answer was here; None: at `time_s`.
    """

    number: str
    time_s: float
    server: str
    status: int
    start_s: float
    service_s: float
    delay_s: float
    expected_s: float
    freed_s: float | None = None


@dataclass(frozen=True)
class Retried:
    """A worker failed a request, which goes to another. Args: why: the end of a sentence about the worker."""

    number: str
    time_s: float
    server: str
    why: str


@dataclass(frozen=True)
class Failed:
    """A request that was taken ended without an image. Args: server: the last one; None: it reached none."""

    number: str
    time_s: float
    server: str | None
    status: int
    code: str


@dataclass(frozen=True)
class Cancelled:
    """Its client went away. Args: server: where it ran; None: it waited."""

    number: str
    time_s: float
    server: str | None


@dataclass(frozen=True)
class FellBack:
    """The policy was not followed. Args: why: a word: raised, late, impossible, foreign-work, idle, rolled-back."""

    time_s: float
    why: str


@dataclass(frozen=True)
class WorkerChanged:
    """A worker's state. Args: state: a word: ready, dead, open, half-open, draining, unknown, removed. why: a text."""

    time_s: float
    server: str
    state: str
    why: str = ""


@dataclass(frozen=True)
class FileChanged:
    """A file that is watched has changed.

    Args:
        file: what it is. taken: whether it is followed now; where it is not, the log says why.
    """

    time_s: float
    file: str
    taken: bool


Event: TypeAlias = (
    Arrived
    | Joined
    | Refused
    | Bound
    | Shadowed
    | Answered
    | Retried
    | Failed
    | Cancelled
    | FellBack
    | WorkerChanged
    | FileChanged
)
Listener: TypeAlias = Callable[[Event], None]
"""Is called in the dispatcher's event loop, so it must be quick and must not raise."""
