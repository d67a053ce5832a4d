"""`--binding` and what goes with it: when a request is given its server, and how requests are held until then."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffpolicy.edge.scenario.scenario import Scenario
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.edge.dispatch.holding import Holding


def add_binding(parser: argparse.ArgumentParser) -> None:
    """`--binding` and how requests are held: when a request is given a server, and which one is."""
    group = parser.add_argument_group("binding requests to servers")
    group.add_argument(
        "--binding",
        choices=("arrival", "free"),
        default="arrival",
        help="bind a request when it arrives (default), or when a server is free; the policy then chooses among "
        "the free servers",
    )
    group.add_argument(
        "--order",
        metavar="ORDER",
        help="which waiting request goes first: first-come, shortest-first, highest-response-ratio, "
        "cost-minus-age, weighted-shortest, earliest-deadline, with options such as shortest-first:cap=6 "
        "(the default) or cost-minus-age:age=0.5,price=3; pretrained:dispatch, a learned order; a file of "
        "train-fleet dispatch; or module:attribute",
    )
    group.add_argument(
        "--dead-time",
        type=float,
        metavar="S",
        help="seconds from a binding to the start, which is what a call costs (default 0)",
    )
    group.add_argument(
        "--lead",
        type=float,
        metavar="S",
        help="a server counts as free this many seconds before its request should end (default 0)",
    )
    group.add_argument(
        "--split",
        action="store_true",
        help="send a request's images one by one, ordered by all that is left of the request; only where no "
        "server makes several faster together",
    )


def holding(
    options: argparse.Namespace, chosen: Scenario | None, policies: Sequence[str | None] = ()
) -> Holding | None:
    """How requests are held; None where they are bound on arrival. Loads no torch.

    Args:
        chosen: the scenario. policies: that are to say which of the free servers.

    Raises:
        InputError: there is no such order, an option belongs to no binding, the problem is another one, or the order
            is a whole dispatcher, which would not ask a policy.
    """
    if options.binding == "arrival":
        for option in ("order", "dead_time", "lead", "split"):
            given = getattr(options, option)
            if given not in (None, False):
                words = f"--{option.replace('_', '-')}" + ("" if given is True else f" {given}")
                raise InputError(f"{words.split()[0]} works only with --binding free, got {words}")
        return None
    if chosen is None:
        raise InputError(f"--binding free works only with the offloading problem, got --problem {options.problem}")
    from diffpolicy.edge.dispatch.held import Held
    from diffpolicy.edge.dispatch.holding import Holding
    from diffpolicy.edge.dispatch.named import DEFAULT_ORDER

    order: str = options.order or DEFAULT_ORDER
    found = Holding(order, options.dead_time or 0.0, options.lead or 0.0, options.split)
    if not isinstance(found.dispatcher, Held):
        for name in policies:
            if name not in ("opt-ts", "opt-ts on arrival", None):
                raise InputError(
                    f"--order {order} is a dispatcher that chooses servers itself and would never ask {name}; name "
                    "opt-ts instead, or give an order"
                )
    return found
