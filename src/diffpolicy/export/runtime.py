"""`ExportedDecision`: runs a file that `export_decision` wrote."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from diffpolicy._read import what_is
from diffpolicy._suggest import meant
from diffpolicy.errors import InputError
from diffpolicy.export import description
from diffpolicy.export.description import Described
from diffpolicy.export.onnx_session import open_session

Run = Callable[[list[Tensor]], list[Tensor]]
"""From input tensors to output tensors, in the order of the description."""
_FORM = attrgetter("shape", "dtype", "requires_grad")


class Runtime(Protocol):
    """What runs a file's content."""

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        """The outputs. Args: tensors: the inputs."""

    def bound(self, tensors: list[Tensor]) -> Run:
        """The same for inputs of these shapes alone, in one thread, with what it needs laid out once."""


class _Last(threading.local):
    """What a thread asked for last. Args: form: of its inputs. run: bound to it, after the second time."""

    form: list[tuple[torch.Size, torch.dtype, bool]] | None = None
    run: Run | None = None


class ExportedDecision:
    """An exported decision function on the CPU.

    Args:
        path: the `.onnx` or `.pt2` file; its description stands beside it.
        threads: of the ONNX runtime; 1 is fastest on networks this small.

    Raises:
        InputError: a file is missing or damaged, of another schema, or its runtime is not installed.

    Example:
        >>> policy = FeedforwardPolicy(choices=3, observation_dim=5, head=CategoricalHead("argmax"))
        >>> decide = ExportedDecision(export_decision(policy, "policy.onnx").path)
        >>> decide.input_names, decide.output_names
        (['observation'], ['action', 'logits'])
        >>> outputs = decide(observation=torch.zeros(4, 5))
        >>> torch.equal(outputs["action"], outputs["logits"].argmax(-1))
        True
    """

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        found = description.read(path)
        self.description, self.inputs = found.data, found.inputs
        self.input_names = [i.name for i in found.inputs]
        self.output_names = [o.name for o in found.outputs]
        self._uniform = next((k for k, name in enumerate(self.input_names) if name == "uniform"), None)
        self._last = _Last()
        self._run: Runtime = run_onnx(path, threads, found) if found.format == "onnx" else run_aoti(path)

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """The outputs by name.

        Args:
            inputs: tensors by name, of the shapes and types in `description["inputs"]`.

        Returns:
            Tensors by the names in `description["outputs"]`; `action` is -1 in a row whose mask allows nothing.

        Raises:
            InputError: other inputs; machine code would read past the end of a smaller one. Or numbers that are not
                finite, of which the file makes no action, or draws outside of [0, 1].
        """
        try:
            tensors = [inputs[name] for name in self.input_names]
            if len(inputs) > len(tensors):
                raise KeyError
        except KeyError:
            raise InputError(self._told_apart(list(inputs))) from None
        last = self._last
        try:
            same = [*map(_FORM, tensors)] == last.form  # then nothing is to be checked: most callers' shapes stay
        except AttributeError:
            same = False
        if not same:
            self._check(tensors)
            last.form, last.run = [*map(_FORM, tensors)], None
            results = self._run([x.detach() for x in tensors])
        else:
            if last.run is None:
                last.run = self._run.bound(tensors)
            results = last.run(tensors)
        if self._uniform is not None:
            _check_draws(tensors[self._uniform])
        if _lacks(results[0]):
            self._check_finite(tensors)
        return dict(zip(self.output_names, results, strict=True))

    def _check_finite(self, tensors: list[Tensor]) -> None:
        """Raises InputError if a number is the cause of an action that is none, as a mask that allows none is not."""
        of_servers = dict(zip(self.input_names, tensors, strict=True)).get("up")
        for name, x in zip(self.input_names, tensors, strict=True):
            wrong = ~x.isfinite()
            if of_servers is not None and x.shape[:2] == of_servers.shape:
                wrong = wrong & of_servers.view(
                    *of_servers.shape, *[1] * (x.ndim - 2)
                )  # others' numbers count for nothing
            if bool(wrong.any()):
                at = wrong.nonzero()[0].tolist()
                raise InputError(f"the decision's {name} holds {x[tuple(at)].item()} at {at}, not finite in float32")

    def _told_apart(self, given: list[str]) -> str:
        """What is wrong with the names of inputs. Args: given: names."""
        lacking = [name for name in self.input_names if name not in given]
        beyond = [name for name in given if name not in self.input_names]
        lacks = f"it lacks {', '.join(lacking)}" if lacking else ""
        has = f"{', '.join(beyond)} {'is none' if len(beyond) == 1 else 'are none'} of them" if beyond else ""
        near = meant(beyond[0], lacking) if beyond else ""
        return f"the decision takes {', '.join(self.input_names)}; {' and '.join(filter(None, (lacks, has)))}{near}"

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
            if list(x.shape) != expected:
                # a free size of an input with a dimension too many or too few is still told as a number
                free = {str(n): m for n, m in zip(spec.shape, x.shape, strict=False) if isinstance(n, str)}
                expected = [sizes.get(str(n), free.get(str(n), n)) for n in spec.shape]
            if list(x.shape) != expected or x.dtype != getattr(torch, spec.dtype):
                found = str(x.dtype).removeprefix("torch.")
                told = ", ".join(map(str, expected))
                raise InputError(
                    f"the decision's {spec.name} must be {spec.dtype} [{told}], got {found} {list(x.shape)}"
                )


def _check_draws(x: Tensor) -> None:
    """Raises InputError if draws are outside of [0, 1]; at 1, to which float32 rounds some below it, they are taken."""
    if x.numel():
        least, most = [x.item()] * 2 if x.numel() == 1 else (end.item() for end in x.detach().aminmax())
        if least < 0 or most > 1:
            raise InputError(f"the decision's uniform must hold draws in [0, 1), got {least if least < 0 else most}")


def _lacks(action: Tensor) -> bool:
    """Whether some row has no action, see `Decision`."""
    if not action.numel():
        return False
    if action.dtype == torch.bool:
        return not bool(action.any(-1).all())
    if action.is_floating_point():
        return bool(action.isnan().any())
    least = action if action.numel() == 1 else action.min()  # one row is what a dispatcher waits for
    return least.item() < 0


def run_onnx(path: str | Path, threads: int = 1, described: Described | None = None) -> Runtime:
    """A function from input tensors to output tensors, by ONNX Runtime; see `open_session`."""
    return _Onnx(open_session(path, threads, described))


class _Onnx:
    """A graph in ONNX Runtime. Args: session: that has loaded it."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs, self._outputs = ([x.name for x in side] for side in (session.get_inputs(), session.get_outputs()))

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        return [torch.from_numpy(y) for y in self._arrays(tensors)]

    def _arrays(self, tensors: list[Tensor]) -> list[np.ndarray[Any, Any]]:
        feed = {name: np.ascontiguousarray(x.detach().numpy()) for name, x in zip(self._inputs, tensors, strict=True)}
        results: list[np.ndarray[Any, Any]] = self._session.run(None, feed)
        return results

    def bound(self, tensors: list[Tensor]) -> Run:
        """Inputs and outputs at fixed places: to hand a dozen arrays over takes as long as half of the graph.

        What a caller fills anew at the same place each time is read where it is, and copied where it is not.
        """
        with torch.inference_mode(False):  # or a caller outside of that mode could not fill them
            places = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in tensors]
        outputs = self._arrays(tensors)
        copied, run = self._binding([x.detach() for x in places], outputs), self._session.run_with_iobinding
        whole = all(x.is_contiguous() for x in tensors)
        direct = self._binding([x.detach() for x in tensors], outputs) if whole else None
        known = [x.data_ptr() for x in tensors]
        # a caller's tensor may have a gradient, and the places have none
        graph_free = torch.no_grad if any(x.requires_grad for x in tensors) else nullcontext

        def placed(tensors: list[Tensor]) -> list[Tensor]:
            there = [x.data_ptr() for x in tensors] == known and all(map(Tensor.is_contiguous, tensors))
            if there and direct is not None:
                run(direct)
            else:
                with graph_free():
                    torch._foreach_copy_(places, tensors)
                run(copied)
            return [torch.from_numpy(y.copy()) for y in outputs]

        return placed

    def _binding(self, tensors: list[Tensor], outputs: list[np.ndarray[Any, Any]]) -> Any:
        """ONNX Runtime's, of inputs and outputs where they are."""
        binding = self._session.io_binding()
        for name, x in zip(self._inputs, tensors, strict=True):
            binding.bind_input(name, "cpu", 0, x.numpy().dtype.type, tuple(x.shape), x.data_ptr())
        for name, y in zip(self._outputs, outputs, strict=True):
            binding.bind_output(name, "cpu", 0, y.dtype.type, y.shape, y.ctypes.data)
        return binding


def run_aoti(path: str | Path) -> Runtime:
    """A function from input tensors to output tensors, by an AOTInductor package."""
    if what_is(path) != "file":
        raise InputError(f"decision file {path} does not exist")
    try:
        loaded = torch._inductor.aoti_load_package(str(path))
    except RuntimeError as error:
        raise InputError(f"decision file {path} cannot be read: {str(error).splitlines()[0]}") from None
    return _Aoti(loaded)


class _Aoti:
    """Machine code of an AOTInductor package. Args: loaded: by torch."""

    def __init__(self, loaded: Any) -> None:
        # what is loaded makes a tree of its arguments and flattens it again, for as long as the code runs
        self._code = loaded.loader

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        # the code reads memory in the order that it was compiled for, whatever a tensor's strides are
        results: list[Tensor] = self._code.run([x.contiguous() for x in tensors])
        return results

    def bound(self, tensors: list[Tensor]) -> Run:
        return self
