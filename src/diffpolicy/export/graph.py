"""Fewer nodes for the same function: a runtime that interprets a graph pays for their number, not for arithmetic.

Each rule below reads one node with those before it, and gives the name of an equal value of fewer nodes, or None. They
are equal for finite numbers but for rounding, and the export is compared with the policy after them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = Sequence[int | str]
"""Sizes, and names of those that are free; "" where it is not known which."""


class Graph:
    """An ONNX graph that is being rewritten, its nodes in order.

    Args:
        model: an ONNX model, of one graph; it is changed by `simplify` alone.
    """

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper, shape_inference

        graph = shape_inference.infer_shapes(model).graph
        self.constants: dict[str, Array] = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
        self.shapes: dict[str, list[int | str]] = {
            x.name: [d.dim_value or d.dim_param for d in x.type.tensor_type.shape.dim]
            for x in (*graph.input, *graph.value_info, *graph.output)
        }
        self.shapes |= {name: list(x.shape) for name, x in self.constants.items()}
        self.nodes: list[Any] = []
        self.made: dict[str, Any] = {}
        self.stacks: dict[str, list[str]] = {}
        """Of what stands beside each other along a last dimension, the parts."""

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Puts a node at the end. Returns: the name of its only output."""
        from onnx import helper

        output = f"{op.lower()}_{len(self.nodes)}_"
        self.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def append(self, node: Any) -> None:
        """Puts a node at the end."""
        self.nodes.append(node)
        self.made |= dict.fromkeys(node.output, node)

    def constant(self, value: Any) -> str:
        """The name of a constant."""
        name = f"constant_{len(self.constants)}_"
        self.constants[name] = np.asarray(value)
        return name

    def inputs(self, name: str, op: str) -> list[str] | None:
        """The inputs of the node of an operator that makes a value; None: another makes it."""
        node = self.made.get(name)
        return list(node.input) if node is not None and node.op_type == op else None

    def number(self, name: str) -> float | None:
        """The value of a constant of one element."""
        value = self.constants.get(name)
        return float(value.reshape(())) if value is not None and value.size == 1 else None

    def with_number(self, name: str, op: str) -> tuple[str, float] | None:
        """Of a commutative operator on a value and a number, both."""
        pair = self.inputs(name, op)
        for value, number in (pair, pair[::-1]) if pair else ():
            found = self.number(number)
            if found is not None:
                return value, found
        return None

    def axis(self, node: Any, rank: int) -> int:
        """The attribute `axis` of a node, counted from the end. Args: rank: of its output."""
        axis = _attribute(node, "axis", 0)
        return int(axis) if axis < 0 else int(axis) - rank


def simplify(model: Any) -> None:
    """Rewrites the graph of an ONNX model, in place.

    Args:
        model: whose initializers are the graph's only constants.
    """
    from onnx import numpy_helper

    graph, outputs, renamed = Graph(model), {x.name for x in model.graph.output}, dict[str, str]()
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        found = None
        if len(node.output) == 1 and node.output[0] not in outputs:
            found = next((name for rule in RULES if (name := rule(graph, node)) is not None), None)
        if found is None:
            graph.append(node)
        else:
            renamed[node.output[0]] = found
    nodes, needed = [], set(outputs)
    for node in reversed(graph.nodes):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(reversed(nodes))
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in graph.constants.items() if name in needed
    )


def softsign(graph: Graph, node: Any) -> str | None:
    """Of x / (1 + |x|)."""
    if node.op_type != "Div" or (below := graph.with_number(node.input[1], "Add")) is None or below[1] != 1:
        return None
    return graph.add("Softsign", node.input[0]) if graph.inputs(below[0], "Abs") == [node.input[0]] else None


def softplus(graph: Graph, node: Any) -> str | None:
    """Of log(1 + exp(x)), which torch computes as x where x is large; ONNX's does not overflow."""
    if node.op_type != "Where":
        return None
    large, x, smooth = node.input
    above = graph.inputs(large, "Greater")
    alike = above is not None and above[0] == x and graph.number(above[1]) is not None
    return smooth if alike and graph.inputs(smooth, "Softplus") == [x] else None


def nothing_added(graph: Graph, node: Any) -> str | None:
    """Of 0 x + y, y."""
    if node.op_type == "Add":
        for term, other in (node.input, node.input[::-1]):
            product = graph.with_number(term, "Mul")
            if product is not None and product[1] == 0:
                return str(other)
    return None


def one_size(graph: Graph, node: Any) -> str | None:
    """One entry of a shape, as a vector."""
    if node.op_type != "Reshape" or (entry := graph.inputs(node.input[0], "Gather")) is None:
        return None
    of, index = graph.made.get(entry[0]), graph.number(entry[1])
    if of is None or of.op_type != "Shape" or index is None or _attribute(of, "start", 0):
        return None
    more = {} if index == -1 else {"end": int(index) + 1}
    return graph.add("Shape", of.input[0], start=int(index), **more)


def stack(graph: Graph, node: Any) -> str | None:
    """Values of one shape, beside each other along a new last dimension, or the one before.

    A concatenation of single numbers copies them one by one; a reshaped one of rows copies rows.
    """
    if node.op_type != "Concat":
        return None
    parts = [graph.inputs(name, "Unsqueeze") for name in node.input]
    shape = graph.shapes.get(node.output[0])
    if shape is None or any(part is None for part in parts):
        return None
    axis, values = graph.axis(node, len(shape)), [part[0] for part in parts if part]
    axes = {graph.number(part[1]) for part in parts if part}
    if axis not in (-1, -2) or len(shape) < 2 or not axes <= {axis, axis + len(shape)}:
        return None
    rows = graph.add("Concat", *values, axis=-1)
    stacked = graph.add("Reshape", rows, graph.constant(np.array([0] * (len(shape) - 2) + [len(values), -1])))
    if axis == -1:
        turned = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        stacked = graph.add("Transpose", stacked, perm=turned)
        graph.stacks[stacked] = values
        graph.shapes[stacked] = shape
    return stacked


def linear(graph: Graph, node: Any) -> str | None:
    """A matrix times a stack of values: what is linear, and products within logarithms, go into the matrix and a bias.

        sum_i (s_i x_i + t_i) W_i = sum_i x_i (s_i W_i) + sum_i t_i W_i,    log(a b / c) = log a + log b - log c

    What is the same for all along the last dimension is multiplied once.
    """
    if node.op_type != "MatMul" or (weight := graph.constants.get(node.input[1])) is None:
        return None
    values = graph.stacks.get(node.input[0])
    shape = graph.shapes.get(node.input[0], [])[:-1]
    if values is None or weight.ndim != 2 or not all(shape):
        return None
    own, shared = Sum(), Sum()
    for name, row in zip(values, weight.astype(np.float64), strict=True):
        wide = graph.inputs(name, "Expand")
        once = wide is not None and graph.shapes.get(wide[0], [])[-1:] == [1]
        _collect(graph, wide[0] if wide and once else name, row, shared if once else own, shared, shape)
    result = graph.add("MatMul", _upright(graph, own, len(shape) + 1), graph.constant(own.matrix(weight.dtype)))
    constant = np.asarray(shared.constant, weight.dtype)
    if shared.rows:
        product = graph.add("MatMul", _flat(graph, shared), graph.constant(shared.matrix(weight.dtype)))
        bias = graph.add("Add", product, graph.constant(constant))
        return graph.add("Add", result, graph.add("Unsqueeze", bias, graph.constant(np.array([-2]))))
    return graph.add("Add", result, graph.constant(constant)) if constant.any() else result


class Sum:
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

    def matrix(self, dtype: Any) -> Array:
        """The rows of logarithms, then the others, `[terms, H]`."""
        keys = [(log, name) for log in (True, False) for name in self.names(log=log)]
        return np.stack([self.rows[key] for key in keys]).astype(dtype)


def _collect(graph: Graph, name: str, row: Array, terms: Sum, shared: Sum, shape: Shape) -> None:
    """Adds a value times a row of the matrix to sums.

    Args:
        name: of the value. terms: the sum of such values. shared: that of what the last dimension shares.
        shape: of what it does not.
    """
    rest = (terms, shared, shape)
    if found := graph.with_number(name, "Mul"):
        _collect(graph, found[0], found[1] * row, *rest)
    elif found := graph.with_number(name, "Add"):
        shared.constant = shared.constant + found[1] * row
        _collect(graph, found[0], row, *rest)
    elif (pair := graph.inputs(name, "Sub")) and (number := graph.number(pair[1])) is not None:
        shared.constant = shared.constant - number * row
        _collect(graph, pair[0], row, *rest)
    elif (pair := graph.inputs(name, "Div")) and (found := graph.with_number(pair[0], "Mul")):
        terms.plus(graph.add("Div", found[0], pair[1]), found[1] * row, log=False)
    elif of := graph.inputs(name, "Log"):
        for sign, factor in _factors(graph, of[0], shape):
            number = graph.number(factor)
            if number is not None:
                shared.constant = shared.constant + sign * np.log(number) * row
            else:
                of_all = graph.shapes[factor] == [*shape[:-1], 1]
                (shared if of_all else terms).plus(factor, sign * row, log=True)
    else:
        terms.plus(name, row, log=False)


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


def _flat(graph: Graph, terms: Sum) -> str:
    """The terms beside each other along the last dimension."""
    logs, values = terms.names(log=True), terms.names(log=False)
    if logs:
        together = graph.add("Concat", *logs, axis=-1) if len(logs) > 1 else logs[0]
        values = [graph.add("Log", together), *values]
    return graph.add("Concat", *values, axis=-1) if len(values) > 1 else values[0]


def _upright(graph: Graph, terms: Sum, rank: int) -> str:
    """The terms, which are of one shape, along a new last dimension. Args: rank: of the result."""
    shape = graph.constant(np.array([0] * (rank - 2) + [len(terms.rows), -1]))
    upright = graph.add("Reshape", _flat(graph, terms), shape)
    return graph.add("Transpose", upright, perm=[*range(rank - 2), rank - 1, rank - 2])


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


RULES: tuple[Callable[[Graph, Any], str | None], ...] = (softsign, softplus, nothing_added, one_size, stack, linear)
