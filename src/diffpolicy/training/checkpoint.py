"""Checkpoints on disk: written with what they are of and a digest of all that they hold, and read as nothing else."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from diffpolicy import _validate as check
from diffpolicy._identity import check_same, content_digest
from diffpolicy._read import read_bytes, show_path, what_is
from diffpolicy._version import __version__
from diffpolicy.errors import InputError
from diffpolicy.training.trainable import Trainable

SCHEMA = "diffpolicy.checkpoint/2"
OURS = ("checkpoint.ckpt", "training.csv", "policy.json", "policy.safetensors")
"""Files of a run's folder."""
LIMIT = 4 * 2**30
"""The most bytes of a checkpoint."""


class CheckpointFile(TorchCheckpointIO):
    """Writes checkpoints with `run`, what they are of; gives to Lightning the one that was read and checked before.

    Args:
        module: whose episodes a checkpoint holds. checked: of `read`, or None.
    """

    def __init__(self, module: Trainable, checked: dict[str, Any] | None) -> None:
        self.module, self.checked, self.given = module, checked, False
        self.run: dict[str, Any] = {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        run = {**self.run, "episodes": self.module.episodes}
        content = {**checkpoint, "run": {**run, "sha256": content_digest({**checkpoint, "run": run})}}
        # to memory first: a full disk is then an OSError with its reason, and no RuntimeError of the zip writer's
        memory = io.BytesIO()
        torch.save(content, memory)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(memory.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        assert self.checked is not None
        self.given = True
        return self.checked


def describe_run(identity: Any, *, compiled: bool, processes: int, episodes: int) -> dict[str, Any]:
    """What a checkpoint says of its run."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "identity": identity,
        "compiled": compiled,
        "processes": processes,
        "episodes": episodes,
    }


def read(path: str | Path) -> dict[str, Any]:
    """A checkpoint, whole and of this schema; nothing but tensors, numbers and texts is unpickled.

    Raises:
        InputError: it is not there, no checkpoint of ours, of an earlier version, or damaged.
    """
    name = f"checkpoint {show_path(path)}"
    if what_is(path) == "folder":
        raise InputError(f"{name} is a folder; name the checkpoint.ckpt in it")
    data = read_bytes(path, "checkpoint", LIMIT)
    try:
        content = _unpacked(data)
        run = content.get("run")
        told = content_digest({**content, "run": _without_digest(run)}) if isinstance(run, dict) else None
    except Exception:  # of what a damaged pickle raises there is no list
        raise InputError(f"{name} cannot be read: it is damaged, or was not written by diffpolicy") from None
    if run is None and "diffpolicy" in content:
        raise InputError(
            f"{name} was written by an earlier version of diffpolicy, which did not say what it was trained with; "
            "resume it with that version, or train again"
        )
    if not isinstance(run, dict):
        raise InputError(f"{name} was not written by diffpolicy")
    schema = run.get("schema")
    if schema != SCHEMA:
        found = check.show(schema) if isinstance(schema, str) else type(schema).__name__
        raise InputError(f"{name} has schema {found}, and this version reads {SCHEMA}")
    if told != run.get("sha256"):
        raise InputError(f"{name} is damaged: it does not hold what was written into it")
    return content


def _unpacked(data: bytes) -> dict[Any, Any]:
    """What a file of `torch.save` holds; empty if that is no dictionary.

    Raises:
        ValueError: it is none, or packed tighter than torch packs, so that a small file could fill the memory.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("torch compresses nothing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return content if isinstance(content, dict) else {}


def _without_digest(run: dict[Any, Any]) -> dict[Any, Any]:
    return {name: value for name, value in run.items() if name != "sha256"}


def check_resumes(saved: dict[str, Any], now: dict[str, Any], source: str) -> None:
    """Refuses to go on from the checkpoint of another run.

    Args:
        saved: `run` of the checkpoint. now: of `describe_run`. source: names the checkpoint, as the sentence begins.

    Raises:
        InputError: they differ; names the first difference, with both values.
    """
    check_same(saved["identity"], now["identity"], source)
    if saved["compiled"] != now["compiled"]:
        words = {True: "with", False: "without"}
        raise InputError(
            f"{source} was written {words[saved['compiled']]} compilation, and this run is {words[now['compiled']]} it"
        )
    if saved["processes"] != now["processes"]:
        raise InputError(f"{source} holds {saved['processes']} processes, and this run has {now['processes']}")


def check_folder(folder: str | Path, resume: str | Path | None, now: dict[str, Any]) -> None:
    """Refuses to write into the folder of another run; files that no run writes are left alone and do not matter.

    Args:
        folder: where to write. resume: the checkpoint from which the run goes on. now: of `describe_run`, with the
            episodes that are done.

    Raises:
        InputError: it holds another run, or the same one further on than `resume`.
    """
    folder = Path(folder)
    there = [name for name in OURS if (folder / name).exists()]
    if not there:
        return
    last = folder / OURS[0]
    if resume is None:
        way = f"continue it by resuming {last}, or " if OURS[0] in there else ""
        raise InputError(f"the output folder {folder} holds another run already ({there[0]}); {way}give another folder")
    if OURS[0] not in there:
        raise InputError(f"the output folder {folder} holds another run already ({there[0]}); give another folder")
    if last.resolve() == Path(resume).resolve():
        return
    run = read(last)["run"]
    try:
        check_resumes(run, now, f"the output folder {folder} holds another run already, which")
    except InputError as error:
        raise InputError(f"{error}; give another folder") from None
    if run["episodes"] > now["episodes"]:
        raise InputError(
            f"the output folder {folder} holds {run['episodes']} episodes of this run already, and checkpoint {resume} "
            f"{now['episodes']}; resume {last}, or give another folder"
        )
