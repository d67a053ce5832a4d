"""Orders by what a user types: a name with its options, or `module:attribute`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from diffpolicy import _validate as check
from diffpolicy._imports import import_attribute, is_attribute
from diffpolicy._suggest import meant
from diffpolicy._types import Floats
from diffpolicy.edge.dispatch.held import Held
from diffpolicy.edge.dispatch.learned_order import LearnedFile, LearnedOrder
from diffpolicy.edge.dispatch.moment import Dispatcher, Moment
from diffpolicy.edge.dispatch.orders import ORDERS, Order
from diffpolicy.environments.entrants import PRETRAINED
from diffpolicy.errors import InputError

DEFAULT_ORDER = "shortest-first:cap=6"
"""Of `--binding free`: 18 % off the mean delay of three equal servers, at the same p99."""
BUNDLED = f"{PRETRAINED}dispatch"
"""The order that was learned, as it is bundled."""
NAMES = (*ORDERS, BUNDLED)
"""All that may stand there by name."""


class OwnOrder:
    """A user's function of a moment as an order. Args: function: from a `Moment` to scores `[W, S]`. name: its."""

    def __init__(self, function: Any, name: str) -> None:
        self.function, self.name = function, name

    def scores(self, moment: Moment) -> Floats:
        """What the function gives. Args: moment: as everywhere."""
        result: Floats = self.function(moment)
        return result


def make_held(text: str, price: float | None = 3.0) -> Dispatcher:
    """Makes a dispatcher that holds requests, from the text after `--order`.

    Args:
        text: a name of `ORDERS`, with options after a colon, such as `shortest-first:cap=6` or
            `cost-minus-age:age=0.5,price=2`; `pretrained:dispatch`, the order that was learned, or a file that
            `train-fleet dispatch` wrote, with `tail` and `cap` as options, such as `pretrained:dispatch:tail=0.5`; or
            `module:attribute`, a function of a `Moment` that gives scores `[W, S]`, an object with such a method
            `scores`, or a whole `Dispatcher`.
        price: where the text names none, see `Held`; in the text `price=none` refuses no free server.

    Returns:
        A `Held`, or the dispatcher that the attribute is.

    Raises:
        InputError: there is no such order or option, or a value is out of range.

    Example:
        >>> make_held("cost-minus-age:age=0.5,price=2")
        Held(order=CostMinusAge(age=0.5), cap=None, price=2.0, choose=None)
    """
    start = len(PRETRAINED) if text.startswith(PRETRAINED) else 0
    name, _, given = text[start:].partition(":")
    name = text[:start] + name
    if name == BUNDLED or name.endswith(".json"):
        return _learned(text, name, given)
    if name not in ORDERS:
        if is_attribute(text) and not start:
            return _own(import_attribute(text, "order"), text, price)
        raise InputError(
            f"order {check.show(text)} is neither one of {', '.join(NAMES)} nor module:attribute{meant(name, NAMES)}"
        )
    options = dict(_option(text, part) for part in given.split(",") if part)
    order = ORDERS[name]
    own = [f.name for f in fields(order)]  # type: ignore[arg-type]
    check.known(options, [*own, "cap", "price"], f"order {name}")
    numbers = {key: options.pop(key) for key in own if key in options}
    return Held(order(**numbers), _cap(name, options), options.get("price", price))


def _learned(text: str, name: str, given: str) -> Held:
    """An order that was learned. Args: text: it with its options. name: its path, or `BUNDLED`. given: its options."""
    options = dict(_option(text, part) for part in given.split(",") if part)
    check.known(options, ["tail", "cap"], f"order {name}")
    read = LearnedFile.bundled() if name == BUNDLED else LearnedFile.read(name)
    return Held(LearnedOrder(read.weights, options.get("tail", 1.0)), _cap(name, options), None)


def _cap(name: str, options: dict[str, Any]) -> int | None:
    """The cap among an order's options, a whole number."""
    cap = options.get("cap")
    if cap is not None and cap != int(cap):
        raise InputError(f"order {name}: cap must be a whole number, got {cap:g}")
    return None if cap is None else int(cap)


def _option(text: str, part: str) -> tuple[str, Any]:
    """`key=value` of an order's options."""
    key, _, value = part.partition("=")
    if value == "none" and key in ("price", "cap"):
        return key, None
    try:
        return key, check.number(float(value), key)
    except ValueError:
        pass
    raise InputError(f"order {check.show(text)}: options are written key=number, got {check.show(part)}")


def _own(made: Any, text: str, price: float | None) -> Dispatcher:
    """What a user's attribute is."""
    if isinstance(made, type):
        made = made()
    if isinstance(made, Dispatcher):
        return made
    if isinstance(made, Order):
        return Held(made, price=price)
    if callable(made):
        return Held(OwnOrder(made, text), price=price)
    raise InputError(f"order {text} must be a function of a Moment, an Order or a Dispatcher, got {check.show(made)}")
