"""`Graph`: an ONNX graph while it is rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from diffpolicy.export.sums import Array, LinearSum

Shape = Sequence[int | str]
"""Sizes, and names of those that are free; "" where it is not known which."""
Rule = Callable[["Graph", Any], str | None]
"""Of a node, the name of an equal value of fewer nodes."""
FLOAT, BOOL = 1, 9
"""ONNX's numbers of the types."""


class Graph:
    """An ONNX graph that is being rewritten, its nodes in order.

    Args:
        model: an ONNX model, of one graph; it is not changed.

    Attributes:
        constants, shapes: of values by name. made: the node that makes each. bools: those of type bool, in order.
        stacks: of what stands beside each other along a last dimension, the parts.
        parts: of one row along the last dimension but one, the whole and the row's index.
        sums: of what is linear in other values, how.
    """

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper, shape_inference

        graph = shape_inference.infer_shapes(model).graph
        typed = (*graph.input, *graph.value_info, *graph.output)
        self.constants: dict[str, Array] = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
        self.shapes: dict[str, list[int | str]] = {
            x.name: [d.dim_value or d.dim_param for d in x.type.tensor_type.shape.dim] for x in typed
        }
        self.shapes |= {name: list(x.shape) for name, x in self.constants.items()}
        self._of_bool = {x.name for x in typed if x.type.tensor_type.elem_type == BOOL}
        self.bools = [x.name for x in graph.input if x.name in self._of_bool]
        self.nodes: list[Any] = []
        self.made: dict[str, Any] = {}
        self.stacks: dict[str, list[str]] = {}
        self.parts: dict[str, tuple[str, int]] = {}
        self.sums: dict[str, LinearSum] = {}
        self._there: dict[Any, str] = {}

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Puts a node at the end, unless there is its like. Returns: the name of its only output."""
        from onnx import helper

        key = (op, inputs, repr(sorted(attributes.items())))
        if key not in self._there:
            output = self._there[key] = f"{op.lower()}_{len(self.nodes)}_"
            self.append(helper.make_node(op, list(inputs), [output], **attributes))
        return self._there[key]

    def split(self, value: str, first: int, second: int) -> tuple[str, str]:
        """A value cut in two along its last dimension. Args: first, second: sizes of the parts."""
        from onnx import helper

        names = (f"split_{len(self.nodes)}_a_", f"split_{len(self.nodes)}_b_")
        sizes = self.constant(np.array([first, second]))
        self.append(helper.make_node("Split", [value, sizes], list(names), axis=-1))
        return names

    def append(self, node: Any) -> None:
        """Puts a node at the end."""
        self.nodes.append(node)
        self.made |= dict.fromkeys(node.output, node)
        self.bools += [name for name in node.output if name in self._of_bool]

    def constant(self, value: Any) -> str:
        """The name of a constant."""
        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._there:
            name = self._there[key] = f"constant_{len(self.constants)}_"
            self.constants[name], self.shapes[name] = array, list(array.shape)
        return self._there[key]

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

    def shifted(self, name: str) -> tuple[str, float] | None:
        """Of a value plus or minus a number, the value and what is added."""
        pair = self.inputs(name, "Sub")
        if pair is None:
            return self.with_number(name, "Add")
        less = self.number(pair[1])
        return None if less is None else (pair[0], -less)


def read_by(node: Any) -> Iterator[Any]:
    """The lists of names that a node reads: its inputs, and those of the branches that it holds."""
    yield node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from read_by(inner)


def attribute(node: Any, name: str, default: Any) -> Any:
    """What a node's attribute is."""
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def from_end(node: Any, rank: int) -> int:
    """The attribute `axis` of a node, counted from the end. Args: rank: of its output."""
    axis = int(attribute(node, "axis", 0))
    return axis if axis < 0 else axis - rank
