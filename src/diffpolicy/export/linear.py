"""Rules on what is linear: products of constant matrices are computed once, and what is added goes into one product."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np

from diffpolicy.export.graph import Graph, Shape, attribute
from diffpolicy.export.sums import Array, LinearSum

_NARROW = 64
"""Columns of a value that may be multiplied by a matrix of its own to be added to a sum."""


def linear(graph: Graph, node: Any) -> str | None:
    """Of what is linear in other values, their product with one matrix.

    (x A + a) B = x (A B) + a B,    x A + y B = [x, y] [A; B]
    """
    found = _SUMS[node.op_type](graph, node) if node.op_type in _SUMS else None
    if found is None or not found.own:
        return None
    shape = graph.shapes.get(node.output[0], [])
    if found.diagonal and node.op_type in ("Mul", "Add", "Sub"):
        graph.sums[node.output[0]] = found  # a product with a matrix is no less than the node: it may be less later
        return None
    name = _written(graph, found)
    graph.sums[name], graph.shapes[name] = found, list(shape)
    return name


def unstacked(graph: Graph, node: Any) -> LinearSum | None:
    """A matrix times a stack of values: what is linear, and products within logarithms, go into the matrix and a bias.

        sum_i (s_i x_i + t_i) W_i = sum_i x_i (s_i W_i) + sum_i t_i W_i,    log(a b / c) = log a + log b - log c

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
    if not own.rows:
        return None
    upright = _upright(graph, own, len(shape) + 1)
    graph.shapes[upright] = [*shape, len(own.rows)]
    flat = {_flat(graph, shared): shared.matrix()} if shared.rows else None
    return LinearSum({upright: own.matrix()}, flat, shared.constant + np.zeros(weight.shape[1]))


class Terms:
    """`sum_x x W_x + sum_y log(y) W_y` and a constant. Attributes: rows: W by (whether a logarithm, name)."""

    def __init__(self) -> None:
        self.rows: dict[tuple[bool, str], Array] = {}
        self.constant: Any = 0.0

    def plus(self, name: str, row: Array, *, log: bool) -> None:
        """Adds a term."""
        self.rows[log, name] = self.rows.get((log, name), 0.0) + row

    def names(self, *, log: bool) -> list[str]:
        """Of the terms of a kind, in order."""
        return [name for of, name in self.rows if of == log]

    def matrix(self) -> Array:
        """The rows of logarithms, then the others, `[terms, H]`."""
        return np.stack([self.rows[log, name] for log in (True, False) for name in self.names(log=log)])


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
        terms.plus(_row_of(graph, value, index), row, log=False)
    elif of := graph.inputs(value, "Log"):
        for sign, factor_name in _factors(graph, of[0], shape):
            number = graph.number(factor_name)
            if number is not None:
                shared.constant = shared.constant + sign * np.log(number) * row
            else:
                of_all = graph.shapes[factor_name] == [*shape[:-1], 1]
                (shared if of_all else terms).plus(factor_name, sign * row, log=True)
    else:
        terms.plus(value, row, log=False)


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


def _factors(graph: Graph, name: str, shape: Shape) -> list[tuple[int, str]]:
    """A value as a product: factors and their powers, 1 or -1; the value itself where a factor has another shape."""
    pair, parts = None, []
    if (added := graph.with_number(name, "Add")) and (over := graph.inputs(added[0], "Div")):
        below = graph.number(over[1])
        if below is not None:  # x / c + d = (x + c d) / c
            more = graph.constant(np.array(below * added[1], graph.constants[over[1]].dtype))
            whole = graph.add("Add", over[0], more)
            graph.shapes[whole] = graph.shapes.get(name, [])
            parts = [(1, whole), (-1, over[1])]
    elif pair := graph.inputs(name, "Mul") or graph.inputs(name, "Div"):
        sign = 1 if graph.made[name].op_type == "Mul" else -1
        parts = _factors(graph, pair[0], shape)
        parts += [(sign * power, factor) for power, factor in _factors(graph, pair[1], shape)]
    fits = (list(shape), [*shape[:-1], 1])
    if parts and all(graph.number(x) is not None or graph.shapes.get(x) in fits for _, x in parts):
        return parts
    return [(1, name)]


def _flat(graph: Graph, terms: Terms) -> str:
    """The terms beside each other along the last dimension."""
    logs, values = terms.names(log=True), terms.names(log=False)
    joined: list[str] = [graph.add("Log", _beside(graph, logs))] if logs else []
    for whole, some in groupby(values, lambda name: graph.parts.get(name, (name, 0))[0]):
        names = list(some)
        rows = [graph.parts[name][1] for name in names if name in graph.parts]
        shape = graph.shapes.get(whole, [])
        if rows == list(range(len(names))) and shape[-2:-1] == [len(rows)]:  # all rows of a value, in order
            joined.append(graph.add("Reshape", whole, graph.constant(np.array([0] * (len(shape) - 2) + [-1]))))
        else:
            joined += names
    return _beside(graph, joined)


def _beside(graph: Graph, names: list[str]) -> str:
    """Values beside each other along the last dimension."""
    return graph.add("Concat", *names, axis=-1) if len(names) > 1 else names[0]


def _upright(graph: Graph, terms: Terms, rank: int) -> str:
    """The terms, which are of one shape, along a new last dimension. Args: rank: of the result."""
    shape = graph.constant(np.array([0] * (rank - 2) + [len(terms.rows), -1]))
    upright = graph.add("Reshape", _flat(graph, terms), shape)
    return graph.add("Transpose", upright, perm=[*range(rank - 2), rank - 1, rank - 2])


def _sum_of(graph: Graph, name: str) -> LinearSum | None:
    """What is known of a value as a sum, else the value times the unit matrix; None: that would be too wide."""
    shape = graph.shapes.get(name, [])
    if name in graph.sums or len(shape) < 2 or not isinstance(shape[-1], int) or not 0 < shape[-1] <= _NARROW:
        return graph.sums.get(name)
    return LinearSum({name: np.eye(shape[-1])})


def _product(graph: Graph, node: Any) -> LinearSum | None:
    """Of a value and a constant matrix."""
    weight = graph.constants.get(node.input[1])
    if weight is None or weight.ndim != 2:
        return None
    if node.input[0] in graph.stacks and (whole := unstacked(graph, node)) is not None:
        return whole
    inner = _sum_of(graph, node.input[0])
    by = weight.astype(np.float64)
    whole = None if inner is None else inner.times(by)
    return whole if whole is not None and whole.small else LinearSum({node.input[0]: by})


def _added(graph: Graph, node: Any) -> LinearSum | None:
    """Of two sums, or of a sum and a constant."""
    names = list(node.input)
    for value, other in (names, names[::-1]):
        known, constant = graph.sums.get(value), graph.constants.get(other)
        if known is not None and constant is not None:
            return _plus_constant(graph, known, constant, node.output[0])
    a, b = (graph.sums.get(name) for name in names)
    shapes = [graph.shapes.get(name) for name in (*names, node.output[0])]
    if a is None or b is None or shapes[0] is None or shapes[0] != shapes[1] or shapes[0] != shapes[2]:
        return None
    whole = a.plus(b)
    return whole if whole.small and all(shapes[0]) else None


def _less(graph: Graph, node: Any) -> LinearSum | None:
    """Of a sum less a constant."""
    known, constant = graph.sums.get(node.input[0]), graph.constants.get(node.input[1])
    return None if known is None or constant is None else _plus_constant(graph, known, -constant, node.output[0])


def _plus_constant(graph: Graph, known: LinearSum, constant: Array, output: str) -> LinearSum | None:
    """A sum and a constant for its columns, or one for all of them."""
    width = (graph.shapes.get(output) or [""])[-1]
    if not isinstance(width, int):
        return None
    if constant.size == 1 or (constant.shape[-1] == width and constant.size == width):
        return known.plus(np.broadcast_to(constant.astype(np.float64).reshape(-1), (width,)))
    return None


def _affine(graph: Graph, node: Any) -> LinearSum | None:
    """Of a matrix product and what is added to it."""
    if any(attribute(node, name, usual) != usual for name, usual in _PLAIN.items()) or len(node.input) != 3:
        return None
    product, added = _product(graph, node), node.input[2]
    if product is None:
        return None
    if added in graph.constants:
        return _plus_constant(graph, product, graph.constants[added], node.output[0])
    other = graph.sums.get(added)
    same = graph.shapes.get(added) == graph.shapes.get(node.output[0]) and other is not None
    whole = product.plus(other) if same else None
    return whole if whole is not None and whole.small else None


def _scaled(graph: Graph, node: Any) -> LinearSum | None:
    """A sum times a number."""
    for value, other in (node.input, node.input[::-1]):
        factor = graph.number(other)
        if factor is not None and graph.constants[other].dtype.kind == "f":
            inner = _sum_of(graph, value)
            return None if inner is None else inner.times(factor)
    return None


def _written(graph: Graph, of: LinearSum) -> str:
    """The nodes of a sum."""
    matrix = np.concatenate(list(of.own.values())).astype(np.float32)
    result = graph.add("MatMul", _beside(graph, list(of.own)), graph.constant(matrix))
    constant = np.asarray(of.constant, np.float32)
    bias = graph.constant(constant) if constant.any() else None
    if of.shared:
        right = graph.constant(np.concatenate(list(of.shared.values())).astype(np.float32))
        product = graph.add("MatMul", _beside(graph, list(of.shared)), right)
        product = graph.add("Unsqueeze", product, graph.constant(np.array([-2])))
        bias = product if bias is None else graph.add("Add", product, bias)
    return result if bias is None else graph.add("Add", result, bias)


_PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
_SUMS: dict[str, Callable[[Graph, Any], LinearSum | None]] = {
    "MatMul": _product,
    "Gemm": _affine,
    "Add": _added,
    "Sub": _less,
    "Mul": _scaled,
}
