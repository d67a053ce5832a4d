"""A policy in front of real servers: worker, dispatcher, and the API that clients speak to."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.serving.comfy_workflow import Workflow as Workflow
    from diffpolicy.edge.serving.comfyui import ComfyUpstream as ComfyUpstream
    from diffpolicy.edge.serving.http_upstream import HttpUpstream as HttpUpstream
    from diffpolicy.edge.serving.image_request import ImageRequest as ImageRequest
    from diffpolicy.edge.serving.limits import Limits as Limits
    from diffpolicy.edge.serving.service import Service as Service
    from diffpolicy.edge.serving.settings import Settings as Settings
    from diffpolicy.edge.serving.upstream import Answer as Answer
    from diffpolicy.edge.serving.upstream import Health as Health
    from diffpolicy.edge.serving.upstream import TellsEnd as TellsEnd
    from diffpolicy.edge.serving.upstream import Upstream as Upstream
    from diffpolicy.edge.serving.upstream import UpstreamError as UpstreamError
    from diffpolicy.edge.serving.worker_spec import WorkerSpec as WorkerSpec
    from diffpolicy.edge.serving.worker_spec import read_workers as read_workers

_HERE = "diffpolicy.edge.serving."
attach(
    __name__,
    {
        "ComfyUpstream": _HERE + "comfyui",
        "HttpUpstream": _HERE + "http_upstream",
        "ImageRequest": _HERE + "image_request",
        "Limits": _HERE + "limits",
        "Answer": _HERE + "upstream",
        "Health": _HERE + "upstream",
        "Service": _HERE + "service",
        "Settings": _HERE + "settings",
        "TellsEnd": _HERE + "upstream",
        "Upstream": _HERE + "upstream",
        "UpstreamError": _HERE + "upstream",
        "WorkerSpec": _HERE + "worker_spec",
        "Workflow": _HERE + "comfy_workflow",
        "read_workers": _HERE + "worker_spec",
    },
)
__all__ = (
    "Answer",
    "ComfyUpstream",
    "Health",
    "HttpUpstream",
    "ImageRequest",
    "Limits",
    "Service",
    "Settings",
    "TellsEnd",
    "Upstream",
    "UpstreamError",
    "WorkerSpec",
    "Workflow",
    "read_workers",
)
