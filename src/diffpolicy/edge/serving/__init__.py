"""A policy in front of real servers: worker, dispatcher, and the API that clients speak to."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.serving.http_upstream import HttpUpstream as HttpUpstream
    from diffpolicy.edge.serving.image_request import ImageRequest as ImageRequest
    from diffpolicy.edge.serving.limits import Limits as Limits
    from diffpolicy.edge.serving.upstream import Upstream as Upstream
    from diffpolicy.edge.serving.worker_spec import WorkerSpec as WorkerSpec
    from diffpolicy.edge.serving.worker_spec import read_workers as read_workers

_HERE = "diffpolicy.edge.serving."
__getattr__, __dir__ = attach(
    __name__,
    {
        "HttpUpstream": _HERE + "http_upstream",
        "ImageRequest": _HERE + "image_request",
        "Limits": _HERE + "limits",
        "Upstream": _HERE + "upstream",
        "WorkerSpec": _HERE + "worker_spec",
        "read_workers": _HERE + "worker_spec",
    },
)
__all__ = ("HttpUpstream", "ImageRequest", "Limits", "Upstream", "WorkerSpec", "read_workers")
