"""`WorkersSource`: the workers that a user named, and what a file says of them by now."""

from __future__ import annotations

import hashlib
from pathlib import Path

from diffpolicy._read import read_bytes
from diffpolicy.edge.serving.comfy_workflow import Workflow
from diffpolicy.edge.serving.limits import Limits
from diffpolicy.edge.serving.room import Room
from diffpolicy.edge.serving.upstream import Upstream
from diffpolicy.edge.serving.upstreams import connect
from diffpolicy.edge.serving.worker_spec import WorkerSpec, read_workers
from diffpolicy.errors import InputError


class WorkersSource:
    """Reads what stands after `--workers`, and a file again when it has changed.

    Args:
        text: addresses with commas between them, or a file.

    Raises:
        InputError: see `read_workers` and `connect`.

    Example:
        >>> source = WorkersSource("http://127.0.0.1:8001")
        >>> source.workers[0].name, source.changed()
        ('127.0.0.1:8001', None)
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.path = None if text.lower().startswith(("http://", "https://")) else Path(text)
        self._seen, self._broken = self._look(), False
        self._workflows: dict[WorkerSpec, Workflow] = {}
        self.workers = self._read()

    def _read(self) -> tuple[WorkerSpec, ...]:
        workers = read_workers(self.text)
        files = {worker: worker.workflow for worker in workers if worker.workflow is not None}
        workflows = {worker: Workflow.read(file, dict(worker.nodes)) for worker, file in files.items()}
        for worker in workers:
            connect(worker, workflow=workflows.get(worker))  # sees whether its key is there, before anything is changed
        self._workflows = workflows
        return workers

    def connect(self, spec: WorkerSpec, limits: Limits | None = None, room: Room | None = None) -> Upstream:
        """As `upstreams.connect`, without a look at the disk, which would keep all requests waiting.

        Args:
            spec: of one of `workers`. limits, room: of `upstreams.connect`.
        """
        return connect(spec, limits, room, workflow=self._workflows.get(spec))

    def _look(self) -> tuple[int, str]:
        """When a file was written, and what it holds; nothing where it cannot be read."""
        if self.path is None:
            return 0, ""
        try:
            held = hashlib.sha256(read_bytes(self.path, "workers file")).hexdigest()
            return self.path.stat().st_mtime_ns, held
        except (InputError, OSError) as error:
            return 0, str(error)

    def changed(self, *, always: bool = False) -> tuple[WorkerSpec, ...] | None:
        """All workers, where the file holds others than before; None: nothing new.

        Args:
            always: read it although it looks as before.

        Raises:
            InputError: it is broken, said once for each state of it; the workers stay as they were, and are returned
                once it is whole again.
        """
        now = self._look()
        if self.path is None or (now == self._seen and not always):
            return None
        self._seen, broken, self._broken = now, self._broken, True
        workers = self._read()
        self._broken = False
        if workers == self.workers and not broken:
            return None
        self.workers = workers
        return workers
