"""`ApiSettings`: what the API does besides passing requests on."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffpolicy import _validate as check
from diffpolicy.edge.serving.api.keys import ApiKeys, Keys
from diffpolicy.edge.serving.limits import Limits


@dataclass(frozen=True)
class ApiSettings:
    """How the API behaves.

    Args:
        limits: what is refused. keys: who is let in; without any, everybody who reaches the port.
        hosts: names under which browsers and clients may ask; None: any. Without keys it keeps pages of other sites,
            which a browser on this machine shows, from sending requests.
        deadline_s: the most that a request may take, whatever its client allows; infinite for none.
        held_bytes: of all bodies together that are read or wait, of answers on their way from workers and to clients,
            and of images that wait for others of their request. Above it no body is taken; answers are, and count.
            Where `make_app` is given a room, the room's own bound holds instead.
        read_s: seconds in which a body must be there.
        comment_s: between two comments of a stream that is held.
        stall_s: after which a client that does not read its answer counts as gone.
        about: what the live page says of who decides; "" for the policy's name.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> ApiSettings(comment_s=5.0).keys.needed
        False
    """

    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=ApiKeys)
    hosts: tuple[str, ...] | None = None
    deadline_s: float = float("inf")
    held_bytes: int = 2**31
    read_s: float = 60.0
    comment_s: float = 15.0
    stall_s: float = 60.0
    about: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "held_bytes", check.integer(self.held_bytes, "held_bytes", least=1))
        for key in ("read_s", "comment_s", "stall_s"):
            check.number(getattr(self, key), key, above=0)
        if not self.deadline_s > 0:
            check.number(self.deadline_s, "deadline_s", above=0)
