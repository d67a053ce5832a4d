"""`Form`: the argument of a logarithm as a sum of values of a graph, so that all arguments are one product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from diffpolicy.export.graph import Graph, Shape

Factors = list[tuple[int, "Form"]]
"""Factors and their powers, 1 or -1."""


@dataclass(frozen=True)
class Form:
    """`sum_x factor_x x + constant`. Args: factors: by the name of x. constant: a number.

    Example:
        >>> form = Form({"x": 1.0}).plus(Form({"x": 2.0, "y": 1.0}, 3.0), 0.5)
        >>> dict(form.factors), form.constant
        ({'x': 2.0, 'y': 0.5}, 1.5)
    """

    factors: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    constant: float = 0.0

    def plus(self, other: Form, by: float = 1.0) -> Form:
        """The sum of it and another times a number."""
        names = {**self.factors, **other.factors}
        factors = {x: self.factors.get(x, 0.0) + by * other.factors.get(x, 0.0) for x in names}
        return Form(factors, self.constant + by * other.constant)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal forms."""
        return (*sorted(self.factors.items()), self.constant)


def form_of(graph: Graph, name: str, shape: Shape) -> Form:
    """A value as a sum of those that are no sums.

    Args:
        shape: of all values in it, or of what is the same along its last dimension.
    """
    number = graph.number(name)
    if number is not None:
        return Form(constant=number)
    if (scaled := graph.with_number(name, "Mul")) and fits(graph, scaled[0], shape):
        return Form().plus(form_of(graph, scaled[0], shape), scaled[1])
    for op, by in (("Add", 1.0), ("Sub", -1.0)):
        pair = graph.inputs(name, op)
        if pair and all(fits(graph, x, shape) for x in pair):
            return form_of(graph, pair[0], shape).plus(form_of(graph, pair[1], shape), by)
    return Form({name: 1.0})


def fits(graph: Graph, name: str, shape: Shape) -> bool:
    """Whether a value is a number, or of a shape, or of one that is the same along its last dimension."""
    return graph.number(name) is not None or graph.shapes.get(name) in (list(shape), [*shape[:-1], 1])


def factors_of(graph: Graph, name: str, shape: Shape) -> Factors:
    """A value as a product of sums; itself where a factor has another shape. Args: shape: of `form_of`."""
    moved = graph.shifted(name)
    if moved and (found := _shifted(graph, *moved, shape)):
        return found
    for op in ("Mul", "Div"):
        pair = graph.inputs(name, op)
        if pair and all(fits(graph, x, shape) for x in pair):
            first, second = (factors_of(graph, x, shape) for x in pair)
            return [*first, *(second if op == "Mul" else _turned(second))]
    return [(1, form_of(graph, name, shape))]


def _shifted(graph: Graph, name: str, added: float, shape: Shape) -> Factors | None:
    """Of a quotient and a number: x / y + d = (x + d y) / y. None: it is no quotient, or of other shapes."""
    over = graph.inputs(name, "Div")
    if not over or not all(fits(graph, x, shape) for x in over):
        return None
    number = graph.number(over[1])
    if number is None:
        whole = form_of(graph, over[0], shape).plus(form_of(graph, over[1], shape), added)
        return [(1, whole), *_turned(factors_of(graph, over[1], shape))]
    whole = form_of(graph, over[0], shape).plus(Form(constant=number * added))
    inner = _shifted(graph, over[0], number * added, shape) or [(1, whole)]
    return [*inner, (-1, Form(constant=number))]


def _turned(factors: Factors) -> Factors:
    """Of one over their product."""
    return [(-power, form) for power, form in factors]
