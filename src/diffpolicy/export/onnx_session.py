"""`open_session`: an exported decision in ONNX Runtime, once it is seen to be what its description says. No torch."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffpolicy._decision_input import DecisionInput
from diffpolicy.errors import InputError
from diffpolicy.export.description import Described

_ONNX_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(bool)": "bool"}


def open_session(path: str | Path, threads: int = 1, described: Described | None = None) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU.

    Args:
        path: of the file. threads: of the runtime. described: what the graph must be, and its bytes.

    Raises:
        InputError: the file cannot be read, or its graph is not as described, or ONNX Runtime is not installed.
    """
    onnxruntime = optional("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    try:
        source = str(path) if described is None else described.content
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base but this one
        raise InputError(f"decision file {path} cannot be read: {str(error).splitlines()[0]}") from None
    if described is not None:
        for side, mine in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
            _check_graph(path, side, getattr(described, side), mine)
    return session


def _check_graph(path: str | Path, side: str, described: Sequence[DecisionInput], graph: Sequence[Any]) -> None:
    """Refuses a graph whose inputs or outputs are not the described ones; a size that is free in it may be any."""
    told = [(i.name, i.dtype, list(i.shape)) for i in described]
    mine = [(i.name, _ONNX_DTYPES.get(i.type, i.type), list(i.shape)) for i in graph]

    def fits(a: tuple[str, str, list[Any]], b: tuple[str, str, list[Any]]) -> bool:
        sizes = zip(a[2], b[2], strict=False)
        return a[:2] == b[:2] and len(a[2]) == len(b[2]) and all(not isinstance(m, int) or m == n for n, m in sizes)

    if len(told) != len(mine) or not all(map(fits, told, mine)):
        raise InputError(f"decision file {path}: its description's {side} are {told}, and the graph's {mine}")


def optional(module: str) -> Any:
    """A module of the extra `export`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"this needs {module}, of an extra: pip install -c constraints.txt '.[export]'") from None
