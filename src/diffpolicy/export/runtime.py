"""`ExportedDecision`: runs a file that `export_decision` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.export import description
from diffpolicy.export.description import Described
from diffpolicy.policies.pure_decision import DecisionInput


class ExportedDecision:
    """An exported decision function on the CPU.

    Args:
        path: the `.onnx` or `.pt2` file; its description stands beside it.
        threads: of the ONNX runtime; 1 is fastest on networks this small.

    Raises:
        InputError: a file is missing or damaged, of another schema, or its runtime is not installed.

    Example:
        >>> decide = ExportedDecision("policy.onnx")
        >>> outputs = decide(observation=observation, latent=latent, noise=noise, uniform=uniform)
        >>> outputs["action"]
    """

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        found = description.read(path)
        self.description, self.inputs = found.data, found.inputs
        self.input_names = [i.name for i in found.inputs]
        self.output_names = [o.name for o in found.outputs]
        self._form: list[tuple[torch.Size, torch.dtype]] = []
        self._run = run_onnx(path, threads, found) if found.format == "onnx" else run_aoti(path)

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """The outputs by name.

        Args:
            inputs: tensors by name, of the shapes and types in `description["inputs"]`.

        Raises:
            InputError: other inputs; machine code would read past the end of a smaller one.
        """
        if inputs.keys() != set(self.input_names):
            raise InputError(f"the decision takes {', '.join(self.input_names)}, got {', '.join(inputs)}")
        tensors = [inputs[name] for name in self.input_names]
        form = [(x.shape, x.dtype) for x in tensors]
        if form != self._form:
            self._check(tensors)
            self._form = form
        return dict(zip(self.output_names, self._run(tensors), strict=True))

    def _check(self, tensors: list[Tensor]) -> None:
        """Raises InputError if a shape or a type is not the described one, or a free size is not the same in all."""
        sizes: dict[str, int] = {}
        for spec, x in zip(self.inputs, tensors, strict=True):
            if not isinstance(x, Tensor):
                raise InputError(f"the decision's {spec.name} must be a torch tensor, got {type(x).__name__}")
            if x.ndim == len(spec.shape):
                for n, m in zip(spec.shape, x.shape, strict=True):
                    sizes.setdefault(str(n), m if isinstance(n, str) else n)
            expected = [sizes.get(str(n), n) for n in spec.shape]
            if list(x.shape) != expected or x.dtype != getattr(torch, spec.dtype):
                found = str(x.dtype).removeprefix("torch.")
                raise InputError(
                    f"the decision's {spec.name} must be {spec.dtype} {expected}, got {found} {list(x.shape)}"
                )


def run_onnx(path: str | Path, threads: int = 1, described: Described | None = None) -> Any:
    """A function from input tensors to output tensors, by ONNX Runtime.

    Args:
        path: of the file. threads: of the runtime. described: what the graph must be, and its bytes.

    Raises:
        InputError: the file cannot be read, or its graph is not as described.
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
    names = [i.name for i in session.get_inputs()]

    def run(tensors: list[Tensor]) -> list[Tensor]:
        feed = {name: np.ascontiguousarray(x.numpy()) for name, x in zip(names, tensors, strict=True)}
        return [torch.from_numpy(y) for y in session.run(None, feed)]

    return run


def _check_graph(path: str | Path, side: str, described: Sequence[DecisionInput], graph: Sequence[Any]) -> None:
    """Refuses a graph whose inputs or outputs are not the described ones; a size that is free in it may be any."""
    told = [(i.name, i.dtype, list(i.shape)) for i in described]
    mine = [(i.name, _ONNX_DTYPES.get(i.type, i.type), list(i.shape)) for i in graph]

    def fits(a: tuple[str, str, list[Any]], b: tuple[str, str, list[Any]]) -> bool:
        sizes = zip(a[2], b[2], strict=False)
        return a[:2] == b[:2] and len(a[2]) == len(b[2]) and all(not isinstance(m, int) or m == n for n, m in sizes)

    if len(told) != len(mine) or not all(map(fits, told, mine)):
        raise InputError(f"decision file {path}: its description's {side} are {told}, and the graph's {mine}")


_ONNX_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(bool)": "bool"}


def run_aoti(path: str | Path) -> Any:
    """A function from input tensors to output tensors, by an AOTInductor package."""
    if not Path(path).is_file():
        raise InputError(f"decision file {path} does not exist")
    try:
        loaded = torch._inductor.aoti_load_package(str(path))
    except RuntimeError as error:
        raise InputError(f"decision file {path} cannot be read: {str(error).splitlines()[0]}") from None
    return lambda tensors: list(loaded(*tensors))


def optional(module: str) -> Any:
    """A module of the extra `export`.

    Raises:
        InputError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"this needs {module}, of an extra: pip install -c constraints.txt '.[export]'") from None
