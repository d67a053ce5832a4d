"""`connect`: the upstream of a worker, by its kind."""

from __future__ import annotations

from diffpolicy.edge.serving.comfy_workflow import Workflow
from diffpolicy.edge.serving.limits import Limits
from diffpolicy.edge.serving.room import Room
from diffpolicy.edge.serving.upstream import Upstream
from diffpolicy.edge.serving.worker_spec import WorkerSpec


def connect(
    spec: WorkerSpec, limits: Limits | None = None, room: Room | None = None, *, workflow: Workflow | None = None
) -> Upstream:
    """How a worker is called; nothing is sent yet.

    Args:
        spec: where it is. limits: of answers. room: where the bytes of answers count while they come.
        workflow: of ComfyUI, as its file was read; None: it is read now.

    Returns:
        For kind `openai` an `HttpUpstream`, for `comfyui` a `ComfyUpstream`.

    Raises:
        InputError: the variable of its key is not set, an extra is not installed, or a workflow cannot be read.

    Example:
        >>> type(connect(WorkerSpec("http://127.0.0.1:8001"))).__name__
        'HttpUpstream'
    """
    from diffpolicy.edge.serving.comfyui import ComfyUpstream
    from diffpolicy.edge.serving.http_upstream import HttpUpstream

    if spec.kind == "comfyui":
        return ComfyUpstream(spec, limits, room, workflow=workflow)
    return HttpUpstream(spec, limits, room)
