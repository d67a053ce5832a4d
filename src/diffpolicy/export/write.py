"""`export_decision`: a policy's decision function as a file, compared with the policy before it is written."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import subprocess
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffpolicy import _files
from diffpolicy._version import __version__
from diffpolicy.errors import InputError
from diffpolicy.export import description
from diffpolicy.export.decision import decision_of
from diffpolicy.export.description import SUFFIX
from diffpolicy.export.onnx_session import optional
from diffpolicy.export.runtime import run_aoti, run_onnx
from diffpolicy.export.signature import choices_of
from diffpolicy.export.simplify import simplify
from diffpolicy.policies.files import portable
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.pure_decision import PureDecision
from diffpolicy.policies.saving import SavedPolicy

TOLERANCE = 1e-5
"""By how much an exported number may differ from the policy's, relative to the larger of it and 1."""


@dataclass(frozen=True)
class Exported:
    """What was written. Args: path: of it. format: `onnx` or `aoti`. difference: the largest seen, see `TOLERANCE`."""

    path: Path
    format: str
    difference: float


def export_decision(policy: SavedPolicy, path: str | Path, format: str = "onnx") -> Exported:  # noqa: A002
    """Writes a policy's decision function, and beside it `PATH.json`, which describes its inputs.

    It is `Decision(policy)`, or what the policy's own method `decision()` gives (see `PureDecision`).

    Args:
        policy: any `Policy`, or one with a method `decision()`.
        path: file, or its folder, which must exist.
        format: `onnx`, for ONNX Runtime; `aoti`, an AOTInductor package for this kind of machine, which needs a C++
            compiler.

    Returns:
        Where it stands, and the largest difference of its numbers from the policy's on random inputs.

    Raises:
        InputError: an unknown format, a policy that cannot be traced, or a result that differs from the policy.

    Example:
        >>> policy = FeedforwardPolicy(choices=3, observation_dim=5)
        >>> written = export_decision(policy, "policy.onnx")
        >>> written.path.exists(), written.difference < 1e-5
        (True, True)
    """
    if format not in FORMATS:
        raise InputError(f"format must be {' or '.join(FORMATS)}, got {format!r}")
    if Path(path).suffix in set(SUFFIX.values()) - {SUFFIX[format]}:
        raise InputError(f"a file of format {format} is called *{SUFFIX[format]}, got {path}")
    _files.check_writable(path)
    decision = decision_of(policy)
    make, load = FORMATS[format]
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / f"decision{SUFFIX[format]}"
        with _quiet():
            make(decision, aside)
        difference = compare(decision, load(aside))
        content = aside.read_bytes()
    counts = choices_of(policy.head) if isinstance(policy, Policy) else []
    choices = {"choices": counts} if counts else {}
    described = {
        "format": format,
        "version": __version__,
        "inputs": [i.to_dict() for i in decision.inputs],
        "outputs": [o.to_dict() for o in decision.outputs],
        "policy": {"class": policy._file_name(), "trained": portable(policy.trained), **choices},
        "largest_difference": difference,
    }
    description.write(path, described, content)
    return Exported(Path(path), format, difference)


def compare(decision: PureDecision, run: Callable[[list[Tensor]], list[Tensor]]) -> float:
    """The largest difference between a decision and its export on random inputs, relative to the larger of 1 and it.

    Raises:
        InputError: it is above `TOLERANCE`, or a choice is another one where that is no matter of rounding.
    """
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for sizes in decision.trials:
        inputs = [i.random(generator=generator, **sizes) for i in decision.inputs]
        theirs = run(inputs)
        with torch.no_grad():
            ours = decision.nearest(theirs, inputs, decision(*inputs), TOLERANCE)
        for spec, a, b in zip(decision.outputs, ours, theirs, strict=True):
            if spec.name == "action":
                right = decision.allows(b, inputs, ours, TOLERANCE)
                if not bool(right.all()):
                    wrong = int((~right).sum())
                    raise InputError(f"the exported decision chooses otherwise in {wrong} of {right.numel()} rows")
                continue
            gap = torch.where(a == b, 0.0, (a - b).abs() / a.abs().clamp_min(1)).max().item()
            if not gap <= TOLERANCE:
                raise InputError(
                    f"the exported {spec.name} differs by {gap:.2g} from the policy's, above {TOLERANCE:g}"
                )
            largest = max(largest, gap)
    return largest


def _export(decision: PureDecision) -> Any:
    """The graph, for any number of rows and of whatever else is free."""
    generator = torch.Generator().manual_seed(0)
    names = sorted({n for i in decision.inputs for n in i.shape if isinstance(n, str)})
    # sizes that differ and are above 1, so that the tracer takes none for another or for a constant
    sizes = {"rows": 3, **{n: 5 + k for k, n in enumerate(n for n in names if n != "rows")}}
    example = tuple(i.random(generator=generator, **sizes) for i in decision.inputs)
    free = {n: torch.export.Dim(n, min=1, max=2**20) for n in names}
    shapes = tuple({d: free[n] for d, n in enumerate(i.shape) if isinstance(n, str)} for i in decision.inputs)
    try:
        with decision.frozen(), torch.no_grad():
            return torch.export.export(decision, example, dynamic_shapes=(shapes,)), example
    except Exception as error:  # the tracer raises whatever the traced code made of its symbols
        first = " ".join(str(error).split())[:200]
        raise InputError(f"the policy cannot be traced, so it cannot be exported: {first}") from None


def _onnx(decision: PureDecision, path: Path) -> None:
    optional("onnxscript")
    graph, example = _export(decision)
    try:
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
    except torch.onnx.OnnxExporterError as error:
        cause = " ".join(str(error.__cause__ or error).split())[:200]
        raise InputError(f"the policy's operators cannot be told in ONNX: {cause}; --format aoti may do") from None
    onnx = optional("onnx")
    model = onnx.load(str(path))
    simplify(model)
    _strip(model)
    onnx.save(model, str(path))


def _strip(message: Any) -> None:
    """Removes what the exporter says of where code stands on this machine, from an ONNX message and all in it."""
    for field in ("doc_string", "metadata_props"):
        if field in message.DESCRIPTOR.fields_by_name:
            message.ClearField(field)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                _strip(part)


def _aoti(decision: PureDecision, path: Path) -> None:
    graph, _ = _export(decision)
    try:
        torch._inductor.aoti_compile_and_package(graph, package_path=str(path))
    except Exception as error:  # Inductor wraps whatever the compiler said
        first = " ".join(str(error).split())[:200]
        raise InputError(f"AOTInductor cannot compile the policy here (it needs a C++ compiler): {first}") from None
    _repack(path)


def _repack(package: Path) -> None:
    """Leaves out of a package sources and debug information, which name folders of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / "package.zip"
        with zipfile.ZipFile(package) as old, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as new:
            for entry in old.infolist():
                if not entry.filename.endswith(".cpp"):
                    new.writestr(entry, _stripped(old.read(entry), Path(folder) / "library.so", entry.filename))
        shutil.copyfile(aside, package)


def _stripped(content: bytes, aside: Path, name: str) -> bytes:
    """A shared library whose texts name no folder of this machine; another file as it is.

    Debug information goes, where the compiler's `strip` is there. Assertions keep the names of their sources' folders,
    which are replaced by as many dots, so that nothing moves.
    """
    if not name.endswith(".so"):
        return content
    program = shutil.which("strip")
    if program is not None:
        aside.write_bytes(content)
        subprocess.run([program, "--strip-debug", str(aside)], capture_output=True, check=False)
        content = aside.read_bytes()
    cache = torch._inductor.runtime.runtime_utils.cache_dir()  # type: ignore[attr-defined]
    for folder in (str(Path(torch.__file__).parents[1]), cache):
        content = content.replace(folder.encode(), b"." * len(folder.encode()))
    return content


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


FORMATS: dict[str, tuple[Callable[[PureDecision, Path], None], Callable[[Path], Any]]] = {
    "onnx": (_onnx, run_onnx),
    "aoti": (_aoti, run_aoti),
}
