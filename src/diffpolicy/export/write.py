"""`export_decision`: a policy's decision function as a file, compared with the policy before it is written."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffpolicy import _files
from diffpolicy._version import __version__
from diffpolicy.errors import InputError
from diffpolicy.export.decision import Decision
from diffpolicy.export.runtime import describe, description_path, optional, run_aoti, run_onnx
from diffpolicy.policies.choice import ChoicePolicy

TOLERANCE = 1e-5
"""By how much an exported number may differ from the policy's, relative to the larger of it and 1."""
ROWS = (1, 7, 64)
"""Numbers of rows on which an export is tried."""


@dataclass(frozen=True)
class Exported:
    """What was written. Args: path: of it. format: `onnx` or `aoti`. difference: the largest seen, see `TOLERANCE`."""

    path: Path
    format: str
    difference: float


def export_decision(policy: ChoicePolicy, path: str | Path, format: str = "onnx") -> Exported:  # noqa: A002
    """Writes a policy's decision function (see `Decision`), and beside it `PATH.json`, which describes its inputs.

    Args:
        policy: any `ChoicePolicy`.
        path: file, or its folder, which must exist.
        format: `onnx`, for ONNX Runtime; `aoti`, an AOTInductor package for this kind of machine, which needs a C++
            compiler.

    Raises:
        InputError: an unknown format, a policy that cannot be traced, or a result that differs from the policy.
    """
    if format not in FORMATS:
        raise InputError(f"format must be {' or '.join(FORMATS)}, got {format!r}")
    _files.check_writable(path)
    decision = Decision(policy)
    make, load = FORMATS[format]
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / f"decision{SUFFIX[format]}"
        with _quiet():
            make(decision, aside)
        difference = compare(decision, load(aside))
        _files.write(path, lambda target: shutil.copyfile(aside, target))
    description = {
        "format": format,
        "version": __version__,
        "inputs": [i.to_dict() for i in decision.inputs],
        "outputs": [o.to_dict() for o in decision.outputs],
        "policy": {"class": policy._file_name(), "trained": policy.trained},
        "largest_difference": difference,
    }
    _files.write_text(description_path(path), describe(description))
    return Exported(Path(path), format, difference)


def compare(decision: Decision, run: Callable[[list[Tensor]], list[Tensor]]) -> float:
    """The largest difference between a decision and its export on random inputs, relative to the larger of 1 and it.

    Raises:
        InputError: it is above `TOLERANCE`, or a choice is another one where that is no matter of rounding.
    """
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for rows in ROWS:
        inputs = [i.random(rows, generator) for i in decision.inputs]
        with torch.no_grad():
            ours = decision(*inputs)
        theirs = run(inputs)
        for spec, a, b in zip(decision.outputs, ours, theirs, strict=True):
            if spec.name == "action":
                _compare_actions(decision, inputs, ours[1], b)
                continue
            gap = ((a - b).abs() / a.abs().clamp_min(1)).max().item()
            if not gap <= TOLERANCE:
                raise InputError(
                    f"the exported {spec.name} differs by {gap:.2g} from the policy's, above {TOLERANCE:g}"
                )
            largest = max(largest, gap)
    return largest


def _compare_actions(decision: Decision, inputs: list[Tensor], logits: Tensor, action: Tensor) -> None:
    """A choice is right if a draw that is moved by a rounding error, or a logit that is, would give it."""
    uniform = dict(zip((i.name for i in decision.inputs), inputs, strict=True)).get("uniform")
    if uniform is None:
        best, chosen = logits.amax(-1), logits.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        right = chosen >= best - TOLERANCE * best.abs().clamp_min(1)
    else:
        near = [decision.policy.choose_at(logits, uniform + shift) for shift in (-TOLERANCE, 0.0, TOLERANCE)]
        right = torch.stack([action == choice for choice in near]).any(0)
    if not bool(right.all()):
        raise InputError(f"the exported decision chooses otherwise in {int((~right).sum())} of {right.numel()} rows")


def _export(decision: Decision) -> Any:
    """The graph, for any number of rows."""
    generator = torch.Generator().manual_seed(0)
    example = tuple(i.random(3, generator) for i in decision.inputs)
    rows = torch.export.Dim("rows", min=1, max=2**20)
    shapes = tuple({d: rows for d, n in enumerate(i.shape) if n == "rows"} for i in decision.inputs)
    frozen = getattr(getattr(decision.policy, "denoiser", None), "frozen", contextlib.nullcontext)
    try:
        with frozen():
            return torch.export.export(decision, example, dynamic_shapes=(shapes,)), example
    except Exception as error:  # the tracer raises whatever the traced code made of its symbols
        first = " ".join(str(error).split())[:200]
        raise InputError(f"the policy cannot be traced, so it cannot be exported: {first}") from None


def _onnx(decision: Decision, path: Path) -> None:
    optional("onnxscript")
    graph, example = _export(decision)
    torch.onnx.export(
        graph,
        example,
        str(path),
        input_names=[i.name for i in decision.inputs],
        output_names=[o.name for o in decision.outputs],
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _aoti(decision: Decision, path: Path) -> None:
    graph, _ = _export(decision)
    try:
        torch._inductor.aoti_compile_and_package(graph, package_path=str(path))
    except Exception as error:  # Inductor wraps whatever the compiler said
        first = " ".join(str(error).split())[:200]
        raise InputError(f"AOTInductor cannot compile the policy here (it needs a C++ compiler): {first}") from None


@contextlib.contextmanager
def _quiet() -> Any:
    """Silences what exporters print about themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


SUFFIX = {"onnx": ".onnx", "aoti": ".pt2"}
FORMATS: dict[str, tuple[Callable[[Decision, Path], None], Callable[[Path], Any]]] = {
    "onnx": (_onnx, run_onnx),
    "aoti": (_aoti, run_aoti),
}
