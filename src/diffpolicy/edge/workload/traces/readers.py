"""Readers of recorded traces; a few broken rows are counted and left out, many are refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

from diffpolicy import _validate as check
from diffpolicy._read import read_text, show_path
from diffpolicy._tables import TABLE_BYTES, read_table, split_lines
from diffpolicy.edge.workload.seeds import Purpose, drawer
from diffpolicy.edge.workload.table_values import LONGEST_GAP_S, UNITS, Moment, check_roles
from diffpolicy.edge.workload.traces.rows import (
    SIZE,
    WHAT,
    Request,
    call,
    gather,
    gather_rows,
    gather_table,
    image_size,
    moment,
    one_of,
    seconds,
    text,
    whole,
)
from diffpolicy.edge.workload.traces.trace import Trace
from diffpolicy.errors import InputError

__all__ = ["Trace", "azure_sample", "read_alibaba", "read_azure", "read_csv", "read_vllm_omni"]

MAX_BROKEN = 0.01
KINDS = ("TXT_2_IMG", "IMG_2_IMG", "INPAINTING")
ARRIVED = ("SUCCEED", "FAILED")
UNFINISHED = ("PENDING", "PROCESSING")
COLUMNS = ("arrival_s", "model", "steps", "images", "width", "height", "exec_s")


def read_alibaba(
    path: str | Path,
    kinds: Iterable[str] = ("TXT_2_IMG",),
    *,
    size: tuple[int, int] = SIZE,
    max_broken: float = MAX_BROKEN,
) -> Trace:
    """Reads `lora_request_trace.csv` of Alibaba's GenTD26: requests to Stable Diffusion in production.

    Requests that succeeded or failed both arrived; those still pending when the record ended are left out, as are
    other kinds: `Trace.skipped` counts them. Times are whole seconds.

    Args:
        path: the CSV, from github.com/alibaba/clusterdata, cluster-trace-v2026-GenAI.
        kinds: of `predict_type`: TXT_2_IMG, IMG_2_IMG, INPAINTING.
        size: width and height in pixels, which the record lacks.
        max_broken: greatest share of rows that cannot be read.

    Raises:
        InputError: no such trace, or too many broken rows; the sentence names the first.

    Paper: Lin et al., Understanding Diffusion Model Serving in Production, SoCC 2025.
    """
    if isinstance(kinds, str) or not set(chosen := tuple(kinds)) <= set(KINDS):
        raise InputError(f"kinds must be a list of {', '.join(KINDS)}, got {check.show(kinds)}")
    size = image_size(size)

    def parse(row: Mapping[str, str]) -> Request | str:
        if one_of(row, "predict_type", KINDS) not in chosen:
            return f"predict_type {row['predict_type'].strip()}"
        if one_of(row, "predict_status", ARRIVED + UNFINISHED) in UNFINISHED:
            return f"predict_status {row['predict_status'].strip()}"
        return Request(
            moment(row, "gmt_create", "datetime"),
            text(row, "checkpoint_model_version_id"),
            whole(row, "num_inference_steps", "steps"),
            whole(row, "num_images_per_prompt", "images"),
            *size,
            seconds(row, "exec_time_seconds"),
        )

    needed: list[str] = ["gmt_create", "predict_type", "predict_status", "exec_time_seconds", "num_images_per_prompt"]
    needed += ["num_inference_steps", "checkpoint_model_version_id"]
    return gather_table(path, needed, parse, max_broken)


def read_azure(path: str | Path, *, max_broken: float = MAX_BROKEN) -> Trace:
    """Reads an Azure LLM inference trace (2023, columns TIMESTAMP, ContextTokens, GeneratedTokens).

    It says when requests arrived, for texts, not images: give them `Trace.with_requests`.

    Args:
        path: the CSV, from github.com/Azure/AzurePublicDataset. max_broken: greatest share of unreadable rows.

    Raises:
        InputError: no such trace, or too many broken rows; the sentence names the first.

    Paper: Patel et al., Splitwise, ISCA 2024.
    """

    def parse(row: Mapping[str, str]) -> Request:
        return Request(moment(row, "TIMESTAMP", "datetime"))

    return gather_table(path, ("TIMESTAMP",), parse, max_broken)


def azure_sample() -> Trace:
    """The first 2,000 arrivals, about seven minutes, of the Azure LLM trace of 2023 (conversations; CC-BY 4.0)."""
    return read_azure(Path(str(resources.files("diffpolicy.edge") / "data" / "azure_llm_2023_conv_sample.csv")))


def read_vllm_omni(
    path: str | Path, *, rate_per_s: float = 1.0, seed: int = 0, max_broken: float = MAX_BROKEN
) -> Trace:
    """Reads a trace of vLLM-Omni's diffusion benchmark, a line `Request(request_id=..., width=..., ...)` a request.

    The lines have an order and no times, so they arrive as a Poisson process, as in the benchmark; where every line
    has a `timestamp`, in seconds, that counts.

    Args:
        path: the text file. rate_per_s: of the Poisson process. seed: of it. max_broken: greatest unreadable share.

    Raises:
        InputError: no such trace, or too many broken lines; the sentence names the first.
    """
    if check.number(rate_per_s, "rate_per_s", above=0) * LONGEST_GAP_S < 1:
        raise InputError(f"rate_per_s must be at least one in {LONGEST_GAP_S:,} s, got {check.show(rate_per_s)}")
    gap_ns = 10**9 / rate_per_s
    rng = drawer(Purpose.TIMES, seed)
    clock = 0.0
    timed: list[bool] = []

    def parse(row: Mapping[str, str]) -> Request:
        nonlocal clock
        clock += float(rng.standard_exponential()) * gap_ns
        values = call(row["line"])
        given = "timestamp" in values
        now = moment(values, "timestamp", "s") if given else Moment(round(clock))
        images = whole(values, "num_images_per_prompt", "images") if "num_images_per_prompt" in values else 1
        sizes = (whole(values, "width", "width"), whole(values, "height", "height"))
        request = Request(now, "default", whole(values, "num_inference_steps", "steps"), images, *sizes)
        timed.append(given)
        return request

    name = f"{WHAT} {show_path(path)}"
    lines = [(n, line.strip()) for n, line in enumerate(split_lines(read_text(path, WHAT, TABLE_BYTES), name), 1)]
    rows = [(n, {"line": line}) for n, line in lines if line]
    trace = gather(name, rows, parse, max_broken, blank=len(lines) - len(rows))
    if any(timed) and not all(timed):
        raise InputError(
            f"{name} has {sum(timed)} of {len(timed)} lines with a timestamp; give one in all of them, or in none"
        )
    return trace


def read_csv(
    path: str | Path,
    columns: Mapping[str, str],
    *,
    unit: str = "s",
    size: tuple[int, int] = SIZE,
    max_broken: float = MAX_BROKEN,
) -> Trace:
    r"""Reads any CSV through a map of columns.

    Args:
        path: a CSV with a header; its rows may stand in any order.
        columns: which of its columns holds what: `arrival_s`, and optionally `model`, `steps`, `images`, `width`,
            `height` and `exec_s`. Without `steps` only times of arrival are read. What is not named is not read;
            `Trace.unread` has the columns that bear one of these names all the same.
        unit: of the times of arrival: `s`, `ms`, `us`, `ns` or `datetime` (`2024-11-15 16:57:50.25`, `T` and a
            zone allowed). `exec_s` is in seconds.
        size: width and height of images in pixels where there are no such columns.
        max_broken: greatest share of rows that cannot be read.

    Raises:
        InputError: a column is missing or unknown, or too many rows are broken; the sentence names the first.

    Example:
        >>> _ = Path("log.csv").write_text("at,net,n\n1500,sdxl,30\n1000,flux,4\n")
        >>> trace = read_csv("log.csv", {"arrival_s": "at", "model": "net", "steps": "n"}, unit="ms")
        >>> trace.arrival_s.tolist(), trace.model
        ([0.0, 0.5], ('flux', 'sdxl'))
    """
    check_roles(columns, COLUMNS)
    columns = check.mapping(columns, "columns", allowed=COLUMNS, required=("arrival_s",))
    _check_columns(columns)
    size = image_size(size)
    check.choice(unit, "unit", UNITS)
    table = read_table(path, WHAT, tuple(columns.values()), list_columns=True)
    unread = tuple(name for name in COLUMNS if name in table.header and name not in {*columns.values(), *columns})

    def count(row: Mapping[str, str], name: str, default: int) -> int:
        return whole(row, columns[name], name) if name in columns else default

    def parse(row: Mapping[str, str]) -> Request:
        return Request(
            moment(row, columns["arrival_s"], unit),
            text(row, columns["model"]) if "model" in columns else "default",
            count(row, "steps", 0),
            count(row, "images", 1),
            count(row, "width", size[0]),
            count(row, "height", size[1]),
            seconds(row, columns["exec_s"]) if "exec_s" in columns else float("nan"),
        )

    return replace(gather_rows(table, parse, max_broken), unread=unread)


def _check_columns(columns: Mapping[str, object]) -> None:
    """One column may be both sides of a square image; otherwise each says one thing."""
    roles: dict[str, str] = {}
    for role, column in columns.items():
        if not isinstance(column, str) or not column:
            raise InputError(f"columns, {role} must be the name of a column, got {check.show(column)}")
        before = roles.setdefault(column, role)
        if before != role and {before, role} != {"width", "height"}:
            raise InputError(f"columns names the column {check.show(column)} twice, for {before} and {role}")
