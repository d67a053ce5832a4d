"""`WorkerSpec`: a worker of the fleet, and the file that lists them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._read import what_is
from diffpolicy.edge.hardware.adapters.server_url import ServerUrl
from diffpolicy.errors import InputError

ADDRESS = re.compile(r"[\w.-]+:\d+(/.*)?")
"""What is meant as an address and has no scheme."""
KINDS = ("openai", "comfyui")
KEYS = ("name", "url", "kind", "slots", "models", "speed", "api_key_env", "workflow", "nodes")


@dataclass(frozen=True)
class WorkerSpec:
    """Where a worker is and what is known of it.

    Args:
        url: of an OpenAI-compatible server or of ComfyUI. name: "" for host and port. kind: one of `KINDS`.
        slots: requests that it works on at once; None: what it says, or 1.
        models: that it serves; None: whatever it says, or any.
        api_key_env: the environment variable that holds its key.
        workflow: of ComfyUI, a file in its API format. nodes: of that file, pairs of what a request sets (prompt,
            negative, size, steps, seed) and the node, where the class of the node does not tell.
        speed: in relation to the other workers' that have one, until it has answered; None: as fast as they are.

    Raises:
        InputError: an argument is no such thing.

    Example:
        >>> WorkerSpec("http://127.0.0.1:8001").name
        '127.0.0.1:8001'
    """

    url: str
    name: str = ""
    kind: str = "openai"
    slots: int | None = None
    models: tuple[str, ...] | None = None
    api_key_env: str | None = None
    workflow: str | None = None
    nodes: tuple[tuple[str, str], ...] = ()
    speed: float | None = None

    def __post_init__(self) -> None:
        ServerUrl.parse(self.url)
        check.choice(self.kind, "kind", KINDS)
        if self.slots is not None:
            object.__setattr__(self, "slots", check.integer(self.slots, "slots", least=1, most=_limits.SEATS))
        if self.speed is not None:
            speed = check.number(self.speed, "speed", least=_limits.SLOWEST, most=_limits.FASTEST)
            object.__setattr__(self, "speed", speed)
        for key in ("name", "api_key_env"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, str) or not value.isprintable() or len(value) > 200):
                raise InputError(f"{key} must be a name of at most 200 characters, got {check.show(value)}")
        if self.models is not None:
            listed = isinstance(self.models, (list, tuple))
            if not listed or not all(isinstance(name, str) and name for name in self.models):
                raise InputError(f"models must be a list of names, got {check.show(self.models)}")
            object.__setattr__(self, "models", tuple(self.models))
        if not isinstance(self.workflow, str | None) or (self.workflow is None) != (self.kind != "comfyui"):
            raise InputError(
                f"workflow must be a file where kind is comfyui, and only there, got {check.show(self.workflow)}"
            )
        pairs = tuple(self.nodes.items()) if isinstance(self.nodes, dict) else self.nodes
        named = isinstance(pairs, tuple) and all(
            isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(x, str) for x in pair) for pair in pairs
        )
        if not named or (pairs and self.workflow is None):
            raise InputError(f"nodes must be an object of names of a workflow's nodes, got {check.show(self.nodes)}")
        object.__setattr__(self, "nodes", pairs)
        if not self.name:
            object.__setattr__(self, "name", urlsplit(self.url).netloc)

    @property
    def reached(self) -> tuple[object, ...]:
        """What tells how it is called; where that stays, connections do."""
        return self.url, self.kind, self.api_key_env, self.workflow, self.nodes


def paired(before: Sequence[WorkerSpec], now: Sequence[WorkerSpec]) -> dict[int, WorkerSpec]:
    """Which workers are the machines that there were: those of the same address, of several one of the same name.

    Args:
        before, now: workers.

    Returns:
        By place in `before`, what is said of it now.

    Example:
        >>> one, two = WorkerSpec("http://a:1"), WorkerSpec("http://b:1")
        >>> paired([one, two], [WorkerSpec("http://b:1", "new name"), WorkerSpec("http://c:1")])[1].name
        'new name'
    """
    found: dict[int, WorkerSpec] = {}
    left = list(now)
    keys: tuple[Callable[[WorkerSpec], object], ...] = (lambda x: x, lambda x: (x.url, x.name), lambda x: x.url)
    for key in keys:
        for j, old in enumerate(before):
            new = next((x for x in left if j not in found and key(x) == key(old)), None)
            if new is not None:
                found[j] = new
                left.remove(new)
    return found


def read_workers(text: str) -> tuple[WorkerSpec, ...]:
    """Reads the workers that a user names, by addresses or by a JSON file.

    Args:
        text: addresses with commas between them, or a JSON file `{"workers": [{"url": ..., "slots": 1, ...}, ...]}`.

    Returns:
        A worker each, of different names.

    Raises:
        InputError: it is neither; names the file, the worker and the key.

    Example:
        >>> [worker.name for worker in read_workers("http://127.0.0.1:8001,http://127.0.0.1:8002")]
        ['127.0.0.1:8001', '127.0.0.1:8002']
    """
    if text.lower().startswith(("http://", "https://")):
        return _unique([WorkerSpec(url.strip()) for url in text.split(",") if url.strip()], "--workers")
    if what_is(text) != "file" and ADDRESS.fullmatch(text.split(",")[0].strip()):
        raise InputError(f"addresses of workers begin with http:// or https://, got {check.show(text)}")
    name = Path(text).name
    given = check.read_json(Path(text), "workers file")
    listed = given.get("workers") if isinstance(given, dict) else None
    if not isinstance(listed, list) or not listed:
        raise InputError(f"workers file {check.show(name)} must hold a list 'workers' that is not empty")
    where = f"workers file {name}"
    folder = Path(text).parent
    return _unique(
        [_worker(f"{where}: workers[{number}]", entry, folder) for number, entry in enumerate(listed)], where
    )


def _worker(where: str, entry: Any, folder: Path) -> WorkerSpec:
    """One entry of the file. Args: where: it stands. entry: it. folder: of the file, from which a workflow is found."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} must be an object with a url, got {check.show(entry)}")
    check.known(entry, KEYS, where)
    with check.within(where):
        if "url" not in entry:
            raise InputError("url is missing")
        given: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in entry.items()}
        if isinstance(given.get("workflow"), str):
            given["workflow"] = str(folder / given["workflow"])
        return WorkerSpec(**given)


def _unique(workers: Sequence[WorkerSpec], where: str) -> tuple[WorkerSpec, ...]:
    """Refuses two of one name."""
    names = [worker.name for worker in workers]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where} names the worker {check.show(name)} twice")
    if not workers:
        raise InputError(f"{where} names no worker")
    return tuple(workers)
