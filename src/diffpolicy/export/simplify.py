"""Fewer nodes for the same function: a runtime that interprets a graph pays for their number, not for arithmetic.

Each rule reads one node with those before it, and gives the name of an equal value of fewer nodes, or None. They are
equal for finite numbers but for rounding, and the export is compared with the policy after them.
"""

from __future__ import annotations

from typing import Any

from diffpolicy.export.graph import Graph, read_by
from diffpolicy.export.linear import linear
from diffpolicy.export.rules import RULES


def simplify(model: Any) -> None:
    """Rewrites the graph of an ONNX model, in place.

    Args:
        model: whose initializers are the graph's only constants.
    """
    from onnx import helper, numpy_helper

    graph, renamed = Graph(model), dict[str, str]()
    for node in model.graph.node:
        for names in read_by(node):
            names[:] = [renamed.get(name, name) for name in names]
        found = None
        if len(node.output) == 1:
            found = next((name for rule in (*RULES, linear) if (name := rule(graph, node)) is not None), None)
        if found is None:
            graph.append(node)
        else:
            renamed[node.output[0]] = found
    called = {}
    for name in (x.name for x in model.graph.output):
        if name in renamed and renamed[name] in graph.made and renamed[name] not in called:
            called[renamed[name]] = name
        elif name in renamed:
            graph.append(helper.make_node("Identity", [renamed[name]], [name]))
    nodes, needed = [], {x.name for x in model.graph.output} | set(called)
    for node in reversed(graph.nodes):
        if needed & set(node.output):
            nodes.append(node)
            for side in (*read_by(node), node.output):
                needed |= set(side)
                side[:] = [called.get(name, name) for name in side]
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(reversed(nodes))
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in graph.constants.items() if name in needed
    )
