"""What arrives: laws of arrivals, mixes of requests, task files, recorded arrivals."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.workload.by_size import SizedWorkload as SizedWorkload
    from diffpolicy.edge.workload.lad_ts import SlotArrivals as SlotArrivals
    from diffpolicy.edge.workload.lad_ts import Workload as Workload
    from diffpolicy.edge.workload.mix import RequestType as RequestType
    from diffpolicy.edge.workload.recorded import TraceWorkload as TraceWorkload
    from diffpolicy.edge.workload.requests import RequestWorkload as RequestWorkload
    from diffpolicy.edge.workload.seeds import Stream as Stream
    from diffpolicy.edge.workload.task_file import TaskList as TaskList

attach(
    __name__,
    {
        "RequestType": "diffpolicy.edge.workload.mix",
        "RequestWorkload": "diffpolicy.edge.workload.requests",
        "SizedWorkload": "diffpolicy.edge.workload.by_size",
        "SlotArrivals": "diffpolicy.edge.workload.lad_ts",
        "Stream": "diffpolicy.edge.workload.seeds",
        "TaskList": "diffpolicy.edge.workload.task_file",
        "TraceWorkload": "diffpolicy.edge.workload.recorded",
        "Workload": "diffpolicy.edge.workload.lad_ts",
    },
)
__all__ = (
    "RequestType",
    "RequestWorkload",
    "SizedWorkload",
    "SlotArrivals",
    "Stream",
    "TaskList",
    "TraceWorkload",
    "Workload",
)
