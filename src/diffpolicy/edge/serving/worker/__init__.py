"""One model on one device, behind OpenAI's Images API: engines, the queue before them, and the app."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.serving.worker.app import make_worker_app as make_worker_app
    from diffpolicy.edge.serving.worker.desk import Desk as Desk
    from diffpolicy.edge.serving.worker.emulated import EmulatedEngine as EmulatedEngine
    from diffpolicy.edge.serving.worker.engine import Engine as Engine
    from diffpolicy.edge.serving.worker.engine import Run as Run
    from diffpolicy.edge.serving.worker.engine import StoppedError as StoppedError
    from diffpolicy.edge.serving.worker.engines import make_engine as make_engine
    from diffpolicy.edge.serving.worker.job import Job as Job
    from diffpolicy.edge.serving.worker.job import Standard as Standard
    from diffpolicy.edge.serving.worker.pipeline import PipelineEngine as PipelineEngine

_HERE = "diffpolicy.edge.serving.worker."
attach(
    __name__,
    {
        "Desk": _HERE + "desk",
        "EmulatedEngine": _HERE + "emulated",
        "Engine": _HERE + "engine",
        "Job": _HERE + "job",
        "PipelineEngine": _HERE + "pipeline",
        "Run": _HERE + "engine",
        "Standard": _HERE + "job",
        "StoppedError": _HERE + "engine",
        "make_engine": _HERE + "engines",
        "make_worker_app": _HERE + "app",
    },
)
__all__ = (
    "Desk",
    "EmulatedEngine",
    "Engine",
    "Job",
    "PipelineEngine",
    "Run",
    "Standard",
    "StoppedError",
    "make_engine",
    "make_worker_app",
)
