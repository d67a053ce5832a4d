"""What a matrix makes of a stack of values: all that is linear in it goes into the matrix and a bias."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from diffpolicy.export.forms import Form, factors_of
from diffpolicy.export.graph import Graph, Shape
from diffpolicy.export.sums import Array, LinearSum


class Terms:
    """`sum_x x W_x + sum_f log(f) W_f` and a constant.

    Attributes:
        values: W_x by the name of x. logs: f and W_f by the key of the form f. constant: of all of them.
    """

    def __init__(self) -> None:
        self.values: dict[str, Array] = {}
        self.logs: dict[Any, tuple[Form, Array]] = {}
        self.constant: Any = 0.0

    def plus(self, name: str, row: Array) -> None:
        """Adds a value times a row."""
        self.values[name] = self.values.get(name, 0.0) + row

    def plus_log(self, form: Form, row: Array) -> None:
        """Adds a logarithm times a row."""
        self.logs[form.key] = form, self.logs.get(form.key, (form, 0.0))[1] + row

    @property
    def forms(self) -> list[Form]:
        """Whose logarithms there are."""
        return [form for form, _ in self.logs.values()]

    def of_logs(self) -> Array:
        """W_f, a row each."""
        return np.stack([row for _, row in self.logs.values()])


def unstacked(graph: Graph, node: Any) -> LinearSum | None:
    """A matrix times a stack of values: what is linear, and products within logarithms, go into the matrix and a bias.

        sum_i (s_i x_i + t_i) W_i = sum_i x_i (s_i W_i) + sum_i t_i W_i,    log(a b / c) = log a + log b - log c

    The a, b and c of all logarithms are sums of few values, so they are one product of these with a constant matrix.
    What is the same for all along the last dimension is multiplied once.
    """
    weight, values = graph.constants[node.input[1]], graph.stacks[node.input[0]]
    shape = graph.shapes.get(node.input[0], [])[:-1]
    if not all(shape):
        return None
    own, shared = Terms(), Terms()
    for name, row in zip(values, weight.astype(np.float64), strict=True):
        wide = _spread(graph, name)
        _collect(graph, wide or name, row, shared if wide else own, shared, shape)
    if not (own.values or own.logs):
        return None
    of_own = {x for x in _names(own.forms) if graph.shapes.get(x) == list(shape)}
    columns = [*own.values, *(x for x in _names(own.forms) if x in of_own and x not in own.values)]
    stack = _upright(graph, columns, shape)
    shift, logs = _around(graph, own.forms, shared.forms, of_own)
    sums = {stack: np.stack([own.values.get(x, np.zeros(weight.shape[1])) for x in columns])}
    if own.logs:
        arguments = graph.add("MatMul", stack, _matrix(graph, own.forms, columns))
        sums = {graph.add("Log", _plus(graph, arguments, shift)): own.of_logs(), **sums}
    flat = {} if logs is None else {graph.add("Log", logs): shared.of_logs()}
    flat |= {x: row[None] for x, row in shared.values.items()}
    return LinearSum(sums, flat or None, shared.constant + np.zeros(weight.shape[1]))


def concatenated(graph: Graph, names: list[str]) -> str:
    """Values beside each other along the last dimension."""
    return graph.add("Concat", *names, axis=-1) if len(names) > 1 else names[0]


def _names(forms: Iterable[Form]) -> list[str]:
    """Of the values in forms, each once."""
    return list(dict.fromkeys(x for form in forms for x in form.factors))


def _matrix(graph: Graph, forms: Sequence[Form], names: Sequence[str]) -> str:
    """The factors of values in forms, `[names, forms]`."""
    return graph.constant(np.array([[form.factors.get(x, 0.0) for form in forms] for x in names], np.float32))


def _plus(graph: Graph, value: str, more: str | None) -> str:
    """A sum, or the value where there is nothing to add."""
    return value if more is None else graph.add("Add", value, more)


def _around(
    graph: Graph, own: Sequence[Form], shared: Sequence[Form], of_own: set[str]
) -> tuple[str | None, str | None]:
    """What all along the last dimension have in common of forms, as one product.

    Args:
        own, shared: forms of each, and of all. of_own: values that are not shared.

    Returns:
        What is added to those of each, `[.., 1, forms]`, and those of all, `[.., forms]`; None where there is nothing.
    """
    constants = [np.array([form.constant for form in forms], np.float32) for forms in (own, shared)]
    names = [x for x in _names([*shared, *own]) if x not in of_own]
    moved = [x for x in _names(own) if x not in of_own]
    both = [*shared, *own] if moved else list(shared)
    if not both:
        return (graph.constant(constants[0]) if constants[0].any() else None), None
    number = np.concatenate(constants[::-1]) if moved else constants[1]
    product = graph.add("MatMul", concatenated(graph, names), _matrix(graph, both, names))
    product = _plus(graph, product, graph.constant(number) if number.any() else None)
    if not moved:
        return (graph.constant(constants[0]) if constants[0].any() else None), product
    shift, logs = product, None
    if shared:
        logs, shift = graph.split(product, len(shared), len(own))
    return graph.add("Unsqueeze", shift, graph.constant(np.array([-2]))), logs


def _spread(graph: Graph, name: str) -> str | None:
    """Of a value that is the same along the last dimension, the one of size 1 there."""
    wide = graph.inputs(name, "Expand") or graph.inputs(name, "Where")
    if wide is None or (len(wide) == 3 and wide[1] != wide[2]):
        return None
    once = wide[0] if len(wide) == 2 else wide[1]
    return once if graph.shapes.get(once, [])[-1:] == [1] else None


def _collect(graph: Graph, name: str, row: Array, terms: Terms, shared: Terms, shape: Shape) -> None:
    """Adds a value times a row of the matrix to sums.

    Args:
        name: of the value. terms: the sum of such values. shared: that of what the last dimension shares.
        shape: of what it does not.
    """
    whole, index = graph.parts.get(name, (name, None))
    value, factor, added = _peeled(graph, whole)
    shared.constant = shared.constant + added * row
    row = factor * row
    if index is not None:
        terms.plus(_row_of(graph, value, index), row)
    elif of := graph.inputs(value, "Log"):
        for sign, form in factors_of(graph, of[0], shape):
            if not form.factors:
                shared.constant = shared.constant + sign * np.log(form.constant) * row
            else:
                of_all = all(graph.shapes[x] == [*shape[:-1], 1] for x in form.factors)
                (shared if of_all else terms).plus_log(form, sign * row)
    else:
        terms.plus(value, row)


def _peeled(graph: Graph, name: str) -> tuple[str, float, float]:
    """A value as `factor x + added`. Returns: x, factor, added."""
    factor, added = 1.0, 0.0
    while True:
        if found := graph.with_number(name, "Mul"):
            name, factor = found[0], factor * found[1]
        elif found := graph.shifted(name):
            name, added = found[0], added + factor * found[1]
        elif (pair := graph.inputs(name, "Div")) and (found := graph.with_number(pair[0], "Mul")):
            shape = graph.shapes.get(name, [])
            name, factor = graph.add("Div", found[0], pair[1]), factor * found[1]
            graph.shapes[name] = shape
        elif moved := _clipped(graph, name):
            name, added = moved[0], added + factor * moved[1]
        else:
            return name, factor, added


def _clipped(graph: Graph, name: str) -> tuple[str, float] | None:
    """Of x + c within bounds, x within the bounds less c, and c."""
    inputs = graph.inputs(name, "Clip") or []
    if len(inputs) != 3 or (moved := graph.shifted(inputs[0])) is None:
        return None
    bounds = [graph.constants.get(bound) for bound in inputs[1:]]
    if any(bound is None for bound in bounds):
        return None
    value, added = moved
    names = [graph.constant(np.asarray(bound - added, bound.dtype)) for bound in bounds if bound is not None]
    return graph.add("Clip", value, *names), added


def _row_of(graph: Graph, whole: str, index: int) -> str:
    """One row of a value along its last dimension but one."""
    axis, ends = graph.constant(np.array([-2])), (np.array([index]), np.array([index + 1]))
    cut = graph.add("Slice", whole, *map(graph.constant, ends), axis)
    name = graph.add("Squeeze", cut, axis)
    graph.parts[name] = whole, index
    return name


def _whole(graph: Graph, values: list[str]) -> list[str]:
    """The values, with one that is reshaped in place of all its rows."""
    joined: list[str] = []
    for whole, some in groupby(values, lambda name: graph.parts.get(name, (name, 0))[0]):
        names = list(some)
        rows = [graph.parts[name][1] for name in names if name in graph.parts]
        shape = graph.shapes.get(whole, [])
        if rows == list(range(len(names))) and shape[-2:-1] == [len(rows)]:  # all rows of a value, in order
            joined.append(graph.add("Reshape", whole, graph.constant(np.array([0] * (len(shape) - 2) + [-1]))))
        else:
            joined += names
    return joined


def _upright(graph: Graph, names: list[str], shape: Shape) -> str:
    """Values of one shape along a new last dimension."""
    rank = len(shape) + 1
    sizes = graph.constant(np.array([0] * (rank - 2) + [len(names), -1]))
    upright = graph.add("Reshape", concatenated(graph, _whole(graph, names)), sizes)
    turned = graph.add("Transpose", upright, perm=[*range(rank - 2), rank - 1, rank - 2])
    graph.shapes[turned] = [*shape, len(names)]
    return turned
