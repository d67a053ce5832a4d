"""Rules on what is linear: products of constant matrices are computed once, and what is added goes into one product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffpolicy.export.graph import Graph, attribute
from diffpolicy.export.stacked import concatenated, unstacked
from diffpolicy.export.sums import Array, LinearSum

_NARROW = 64
"""Columns of a value that may be multiplied by a matrix of its own to be added to a sum."""


def linear(graph: Graph, node: Any) -> str | None:
    """Of what is linear in other values, their product with one matrix.

    (x A + a) B = x (A B) + a B,    x A + y B = [x, y] [A; B]
    """
    double = any(x in graph.constants and graph.constants[x].dtype == np.float64 for x in node.input)
    found = _SUMS[node.op_type](graph, node) if node.op_type in _SUMS and not double else None
    if found is None or not found.own:
        return None
    shape = graph.shapes.get(node.output[0], [])
    if found.diagonal and node.op_type in ("Mul", "Add", "Sub"):
        graph.sums[node.output[0]] = found  # a product with a matrix is no less than the node: it may be less later
        return None
    name = _written(graph, found)
    graph.sums[name], graph.shapes[name] = found, list(shape)
    return name


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
    result = graph.add("MatMul", concatenated(graph, list(of.own)), graph.constant(matrix))
    constant = np.asarray(of.constant, np.float32)
    bias = graph.constant(constant) if constant.any() else None
    if of.shared:
        right = graph.constant(np.concatenate(list(of.shared.values())).astype(np.float32))
        product = graph.add("MatMul", concatenated(graph, list(of.shared)), right)
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
