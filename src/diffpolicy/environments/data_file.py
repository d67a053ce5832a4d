"""`read_data`: a data set on disk, whatever kind of file it is in, as rows under the keys of an environment."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from tensordict import TensorDict
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._memory import check_free
from diffpolicy._read import show_path, what_is
from diffpolicy.environments.decision_log import read_decisions
from diffpolicy.environments.tensor_folder import read_folder
from diffpolicy.errors import InputError

NAMES: dict[str, NestedKey] = {
    "mask": "action_mask",
    "next_observation": ("next", "observation"),
    "next_mask": ("next", "action_mask"),
    "next_action_mask": ("next", "action_mask"),
    "terminated": ("next", "terminated"),
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "next_observations": ("next", "observation"),
    "terminals": ("next", "terminated"),
}
"""Where arrays stand that files call otherwise, those of D4RL among them."""


def read_data(path: str | Path) -> TensorDict:
    """Reads rows of a data set from a file; nothing is unpickled.

    Args:
        path: of a folder that `TensorDict.memmap` wrote, such as a rollout; of an `.npz` or `.safetensors` file; or of
            a `.csv`, the log of decisions that `read_decisions` reads. Arrays are called `observation`, `action` and,
            where they are there, `action_mask` (or `mask`), `reward`, `next_observation`, `terminated`, `next_mask`, or
            as D4RL calls them (`observations`, ..., `terminals`); a dot or a slash goes into a group
            (`agents.observation`). Where not all rows are there, `valid` (the environment's own key of which items
            exist) and `counted` (steps of a lane that has not ended) tell which are: the others are not learned.

    Returns:
        Batch `[M]`, with `next`; a rollout's lanes and steps are one after the other. `rows_of` makes of it what a
        policy learns from.

    Raises:
        InputError: names the file, and what in it cannot be read.

    Example:
        >>> import numpy as np
        >>> np.savez("data.npz", observation=np.zeros((5, 3)), action=np.arange(5) % 3, mask=np.ones((5, 3), bool))
        >>> read_data("data.npz")["action_mask"].shape
        torch.Size([5, 3])
    """
    file = check.path(path, "data")
    name = f"data {show_path(path)}"
    if what_is(file) == "folder":
        found = read_folder(file, "data")
        if not found.batch_size:
            raise InputError(f"{name} must hold rows, and its batch is []")
        return found.reshape(-1)
    if what_is(file) != "file":
        device = "is a device, a pipe or a socket, not a file" if what_is(file) else "does not exist"
        raise InputError(f"{name} {device}")
    if file.suffix == ".csv":
        return read_decisions(file)
    if file.suffix not in (".npz", ".safetensors"):
        raise InputError(f"{name} must be a folder of TensorDict.memmap, or end in .npz, .safetensors or .csv")
    try:
        arrays = _npz(file) if file.suffix == ".npz" else _safetensors(file)
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError) as error:
        raise InputError(f"{name} cannot be read: {(str(error).splitlines() or ['?'])[0]}") from None
    except Exception as error:  # a damaged zip has errors of its own
        raise InputError(f"{name} cannot be read: {type(error).__name__}") from None
    lengths = {len(x) if x.ndim else 0 for x in arrays.values()}
    if len(lengths) != 1 or 0 in lengths:
        told = ", ".join(f"{key} {list(x.shape)}" for key, x in arrays.items())
        raise InputError(f"{name} must hold arrays with the same number of rows, got {told or 'none'}")
    result = TensorDict(batch_size=[lengths.pop()])
    for place, key in _places(list(arrays), name).items():
        x = arrays[key]
        if x.is_complex():
            raise InputError(f"{name} holds complex numbers in {key!r}, but only real ones can be learned from")
        result.set(place, x.float() if x.dtype == torch.float64 else x)
    return result


def _places(keys: list[str], name: str) -> dict[tuple[str, ...], str]:
    """Where each array of a file stands, and its name there. Args: keys: the names. name: of the file, in messages."""
    found: dict[tuple[str, ...], str] = {}
    for key in keys:
        at = NAMES.get(key, tuple(key.replace("/", ".").split(".")))
        place = at if isinstance(at, tuple) else (at,)
        if "" in place:
            raise InputError(f"{name} holds the array {key!r}, whose name has an empty part between dots or slashes")
        if place in found:
            raise InputError(f"{name} holds both {found[place]!r} and {key!r}, which mean the same; leave one out")
        found[place] = key
    for place, key in found.items():
        group = next((place[:k] for k in range(1, len(place)) if place[:k] in found), None)
        if group is not None:
            raise InputError(f"{name} holds {found[group]!r} as an array, and {key!r} within it; rename one of them")
    return found


def _safetensors(file: Path) -> dict[str, Tensor]:
    check_free(file.stat().st_size, f"data {show_path(file)}")
    return safetensors.torch.load_file(file)


def _npz(file: Path) -> dict[str, Tensor]:
    name, need = f"data {show_path(file)}", 0
    with zipfile.ZipFile(file) as packed:  # of which a small file may hold terabytes
        for entry in packed.infolist():
            shape, kind = _header_in(packed, entry)
            array = f"{name}: array {entry.filename.removesuffix('.npy')!r}"
            if kind.hasobject:
                raise InputError(f"{array} must hold numbers, but it holds Python objects, which are not unpickled")
            if math.prod(shape) > _limits.REPLAYED or entry.file_size > 16 * _limits.REPLAYED:
                raise InputError(f"{array} must have at most {_limits.REPLAYED:,} numbers, got {list(shape)}")
            if math.prod(shape) * kind.itemsize > entry.file_size:
                raise InputError(
                    f"{array} cannot be read: it holds less than the {list(shape)} numbers that its header says"
                )
            need += entry.file_size
    check_free(need, name)
    with np.load(file, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def _header_in(packed: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape of an array of an `.npz` and what its numbers are; none is read. () and no bytes: NumPy says why."""
    with packed.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            return (), np.dtype("V0")
        shape, _, dtype = read(file)
        return shape, dtype
