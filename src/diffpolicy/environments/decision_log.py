"""Decisions from a file: what was observed, decided, allowed and earned, and how probable it was; one strict reader."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from tensordict import TensorDict
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy._read import show_path, what_is
from diffpolicy._tables import Table, read_table
from diffpolicy.environments.tensor_folder import read_folder
from diffpolicy.errors import InputError

COLUMN = re.compile(r"(observation|action|mask|next_observation|next_mask)(?:_(\d+))?\Z")
SINGLE = ("reward", "propensity", "terminated")
KEYS = {
    "observation": "observation",
    "action": "action",
    "mask": "action_mask",
    "reward": "reward",
    "propensity": "propensity",
    "next_observation": ("next", "observation"),
    "next_mask": ("next", "action_mask"),
    "terminated": ("next", "terminated"),
}
"""Where the columns of a table stand in a row."""
WHAT = "decisions"
NEEDED = (("observation", "observation_0"), ("action", "action_0"))


def read_decisions(path: str | Path) -> TensorDict:
    r"""Reads rows of decisions from a CSV, or a folder that `TensorDict.memmap` wrote; nothing is unpickled.

    Args:
        path: of the file or folder. A CSV has columns `observation_0`, `observation_1`, ... (or `observation`, where it
            is one number), `action` (or `action_0`, ...), and, if it likes, `mask_0`, ..., 1 where a choice is allowed,
            `reward`, `propensity`, the probability with which the action was drawn (empty where nobody knows), and
            `terminated`, `next_observation_0`, ..., `next_mask_0`, ... for those who learn values. Others are left. A
            folder holds the keys below, and other ones too.

    Returns:
        Batch `[M]`: observation `[M, F]`, action `[M]` or `[M, D]`, whole numbers where all of them are, action_mask
        bool, reward, propensity (NaN where it is not known), and `next` with observation, action_mask and terminated.

    Raises:
        InputError: names the file, and the line and column that cannot be read.

    Example:
        >>> from pathlib import Path
        >>> text = "observation_0,observation_1,action,reward,propensity\n0.5,1,2,1.5,0.25\n"
        >>> _ = Path("log.csv").write_text(text)
        >>> rows = read_decisions("log.csv")
        >>> rows["observation"], rows["action"], rows["propensity"]
        (tensor([[0.5000, 1.0000]]), tensor([2]), tensor([0.2500]))
    """
    file = check.path(path, WHAT)
    return _folder(file) if what_is(file) == "folder" else _table(read_table(file, WHAT, NEEDED).complete("rows"))


def _table(table: Table) -> TensorDict:
    columns: dict[str, dict[int | None, int]] = {}
    for place, name in enumerate(table.header):
        found = COLUMN.match(name)
        if found:
            columns.setdefault(found[1], {})[None if found[2] is None else int(found[2])] = place
        elif name in SINGLE:
            columns[name] = {None: place}
    rows: dict[str, Tensor] = {}
    for name, places in columns.items():
        numbers = sorted(k for k in places if k is not None)
        if (None in places and numbers) or numbers != list(range(len(numbers))):
            raise InputError(
                f"{table.name} must number the columns of {name!r} from 0 on, {name}_0, {name}_1, ..., or have one "
                f"{name!r}; got {', '.join(table.header[k] for k in places.values())}"
            )
        order = [places[k] for k in numbers] or [places[None]]
        values = _numbers(table, order, gaps=name == "propensity")
        rows[name] = values[:, 0] if None in places and name not in ("observation", "next_observation") else values
    for name in ("mask", "next_mask", "terminated"):
        if name in rows:
            rows[name] = _flags(table, name, rows[name])
    return _rows(table.name, rows)


def _numbers(table: Table, order: Sequence[int], *, gaps: bool) -> Tensor:
    """Columns of numbers, float64 `[M, len(order)]`. Args: order: their places. gaps: whether one may be empty."""
    result = torch.empty(len(table.rows), len(order), dtype=torch.float64)
    for r, row in enumerate(table.rows):
        for c, place in enumerate(order):
            text = row[place].strip()
            try:
                value = math.nan if gaps and not text else float(text.replace("_", "?"))
            except ValueError:
                value = math.inf
            if math.isinf(value) or (math.isnan(value) and text):
                raise InputError(
                    f"{table.name}, line {table.lines[r]}: {table.header[place]} must be a number, "
                    f"got {check.show(row[place])}"
                )
            result[r, c] = value
    return result


def _flags(table: Table, name: str, values: Tensor) -> Tensor:
    flags = values != 0
    wrong = (values != flags).nonzero()
    if len(wrong):
        row = int(wrong[0, 0])
        raise InputError(
            f"{table.name}, line {table.lines[row]}: {name} must be 0 or 1, got {values[tuple(wrong[0])].item():g}"
        )
    return flags


def _rows(name: str, columns: dict[str, Tensor]) -> TensorDict:
    missing = [column for column in ("observation", "action") if column not in columns]
    if missing:
        raise InputError(f"{name} has no column {missing[0]!r} or '{missing[0]}_0'")
    action = columns["action"]
    if action.is_floating_point() and bool((action == action.round()).all()):
        columns["action"] = action.long()
    m = len(action)
    result = TensorDict(batch_size=[m])
    for column, value in columns.items():
        result.set(KEYS[column], value.float() if value.dtype == torch.float64 else value)
    return result


def _folder(path: Path) -> TensorDict:
    rows = read_folder(path, WHAT)
    if rows.batch_dims != 1:
        raise InputError(f"{WHAT} {show_path(path)} must have the shape [rows], got {list(rows.batch_size)}")
    for key in ("observation", "action"):
        if not isinstance(rows.get(key, None), Tensor):
            raise InputError(f"{WHAT} {show_path(path)} must hold {key!r} of each of its rows")
    return rows


def check_decisions(rows: TensorDict, observation_dim: int, name: str) -> None:
    """Refuses rows of another width than a policy reads. Args: rows: read. observation_dim: wanted. name: of them.

    Raises:
        InputError: names both widths.
    """
    width = rows["observation"].shape[-1]
    if width != observation_dim:
        raise InputError(f"{name} holds {width} numbers of each observation, and the policy reads {observation_dim}")
