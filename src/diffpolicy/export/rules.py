"""Rules on few nodes: what an equal value of fewer is."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffpolicy.export.graph import BOOL, FLOAT, Graph, Rule, attribute, from_end


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


def clipped_after(graph: Graph, node: Any) -> str | None:
    """Of an input that is clipped and given a dimension, the same in the other order: it may be given it again."""
    if node.op_type != "Unsqueeze":
        return None
    value, axes = node.input
    clip = graph.inputs(value, "Clip")
    if (clip[0] if clip else value) in graph.made:
        return None
    found = graph.add("Unsqueeze", clip[0] if clip else value, axes)
    found = graph.add("Clip", found, *clip[1:]) if clip else found
    graph.shapes[found] = graph.shapes.get(node.output[0], [])
    return found


def nothing_added(graph: Graph, node: Any) -> str | None:
    """Of 0 x + y, y."""
    if node.op_type == "Add":
        for term, other in (node.input, node.input[::-1]):
            product = graph.with_number(term, "Mul")
            if product is not None and product[1] == 0:
                return str(other)
    return None


def one_shift(graph: Graph, node: Any) -> str | None:
    """Of x + a + b, x + (a + b)."""
    if node.op_type not in ("Add", "Sub") or (inner := graph.shifted(node.input[0])) is None:
        return None
    outer = graph.number(node.input[1])
    if outer is None:
        return None
    total = inner[1] + (outer if node.op_type == "Add" else -outer)
    return graph.add("Add", inner[0], graph.constant(np.array(total, graph.constants[node.input[1]].dtype)))


def one_size(graph: Graph, node: Any) -> str | None:
    """One entry of a shape, as a vector."""
    if node.op_type != "Reshape" or (entry := graph.inputs(node.input[0], "Gather")) is None:
        return None
    of, index = graph.made.get(entry[0]), graph.number(entry[1])
    if of is None or of.op_type != "Shape" or index is None or attribute(of, "start", 0):
        return None
    more = {} if index == -1 else {"end": int(index) + 1}
    return graph.add("Shape", of.input[0], start=int(index), **more)


def affirmed(graph: Graph, node: Any) -> str | None:
    """Of a choice by what is not, that by what is."""
    if node.op_type != "Where" or (negated := graph.inputs(node.input[0], "Not")) is None:
        return None
    return graph.add("Where", negated[0], node.input[2], node.input[1])


def spread(graph: Graph, node: Any) -> str | None:
    """Of a value over a shape that a truth value has too, a choice by it between the value and itself.

    The shape itself would be several nodes.
    """
    shape = graph.shapes.get(node.output[0], [])
    if node.op_type != "Expand" or not shape or not all(shape):
        return None
    of = next((name for name in graph.bools if graph.shapes.get(name) == shape), None)
    return None if of is None else graph.add("Where", of, node.input[0], node.input[0])


def part(graph: Graph, node: Any) -> str | None:
    """Notes what is one row of a value, along its last dimension but one."""
    if node.op_type != "Squeeze" or (cut := graph.inputs(node.input[0], "Slice")) is None or len(cut) < 4:
        return None
    rank = len(graph.shapes.get(cut[0], []))
    first, end, axis, *step = (graph.number(name) for name in cut[1:])
    if axis in (-2, rank - 2) and first is not None and first >= 0 and end == first + 1 and step in ([], [1]):
        graph.parts[node.output[0]] = cut[0], int(first)
    return None


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
    axis, values = from_end(node, len(shape)), [part[0] for part in parts if part]
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


def mish(graph: Graph, node: Any) -> str | None:
    """Of Mish, x tanh(softplus(x)), as which ONNX Runtime computes it too, but after it has looked for constants.

    It has no kernel for it, and says so on standard error where x is constant.
    """
    if node.op_type != "Mish":
        return None
    x = node.input[0]
    return graph.add("Mul", x, graph.add("Tanh", graph.add("Softplus", x)))


def any_true(graph: Graph, node: Any) -> str | None:
    """Of whether any of a row is true, by whole numbers, that by real ones, which masks are beside observations."""
    if node.op_type != "Cast":
        return None
    value, to = node.input[0], attribute(node, "to", 0)
    if to == FLOAT and value in graph.bools:
        return graph.add("Cast", value, to=FLOAT)
    most = graph.inputs(value, "ReduceMax") if to == BOOL else None
    of = graph.inputs(most[0], "Cast") if most else None
    if most is None or of is None or of[0] not in graph.bools:
        return None
    kept = attribute(graph.made[value], "keepdims", 1)
    greatest = graph.add("ReduceMax", graph.add("Cast", of[0], to=FLOAT), *most[1:], keepdims=kept)
    return graph.add("Cast", greatest, to=BOOL)


RULES: tuple[Rule, ...] = (
    softsign,
    softplus,
    mish,
    clipped_after,
    any_true,
    nothing_added,
    one_shift,
    one_size,
    affirmed,
    spread,
    part,
    stack,
)
"""In the order in which they are tried."""
