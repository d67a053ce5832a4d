"""`Refusal`: what a worker that takes a request later said of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Refusal:
    """What a worker that had nothing of ours said of one request.

    Args:
        first_s: when it refused it first. until_s: the request does not go there before.
        odd: times that it refused it again and had answered others meanwhile, so that it is this request that it does
            not take, as by a limit of its model or size.
    """

    first_s: float
    until_s: float = 0.0
    odd: int = 0
