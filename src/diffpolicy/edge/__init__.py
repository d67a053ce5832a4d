"""The edge-AIGC offloading problem: which server generates each image, so that users wait least."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.availability import Availability as Availability
    from diffpolicy.edge.comparison import Comparison as Comparison
    from diffpolicy.edge.env import OffloadingEnv as OffloadingEnv
    from diffpolicy.edge.evaluation import Evaluation as Evaluation
    from diffpolicy.edge.evaluation import Replay as Replay
    from diffpolicy.edge.evaluation import evaluate as evaluate
    from diffpolicy.edge.evaluation import play_episodes as play_episodes
    from diffpolicy.edge.evaluation import replay as replay
    from diffpolicy.edge.fleet_policy import FleetPolicy as FleetPolicy
    from diffpolicy.edge.heuristic import Heuristic as Heuristic
    from diffpolicy.edge.heuristics import HEURISTICS as HEURISTICS
    from diffpolicy.edge.jobs import Plan as Plan
    from diffpolicy.edge.metrics import Delays as Delays
    from diffpolicy.edge.metrics import Result as Result
    from diffpolicy.edge.queueing import Fleet as Fleet
    from diffpolicy.edge.queueing import SlotTasks as SlotTasks
    from diffpolicy.edge.queueing import assign_in_order as assign_in_order
    from diffpolicy.edge.queueing import next_queue_gcycles as next_queue_gcycles
    from diffpolicy.edge.queueing import slot_delays_s as slot_delays_s
    from diffpolicy.edge.queueing import unloaded_delay_s as unloaded_delay_s
    from diffpolicy.edge.queueing import work_ahead_gcycles as work_ahead_gcycles
    from diffpolicy.edge.queueing import work_sent_gcycles as work_sent_gcycles
    from diffpolicy.edge.request_types import RequestType as RequestType
    from diffpolicy.edge.requests import RequestWorkload as RequestWorkload
    from diffpolicy.edge.resolve import make_method as make_method
    from diffpolicy.edge.resolve import make_policy as make_policy
    from diffpolicy.edge.scenario import Scenario as Scenario
    from diffpolicy.edge.server import Server as Server
    from diffpolicy.edge.service_times import ModelTimes as ModelTimes
    from diffpolicy.edge.service_times import ServerService as ServerService
    from diffpolicy.edge.sweep import Sweep as Sweep
    from diffpolicy.edge.sweep import run_sweep as run_sweep
    from diffpolicy.edge.tasks import TaskList as TaskList
    from diffpolicy.edge.trace_workload import TraceWorkload as TraceWorkload
    from diffpolicy.edge.transitions import released_transitions as released_transitions
    from diffpolicy.edge.transitions import task_transitions as task_transitions
    from diffpolicy.edge.workload import Stream as Stream
    from diffpolicy.edge.workload import Workload as Workload

__getattr__, __dir__ = attach(
    __name__,
    {
        "Availability": "diffpolicy.edge.availability",
        "Plan": "diffpolicy.edge.jobs",
        "Comparison": "diffpolicy.edge.comparison",
        "OffloadingEnv": "diffpolicy.edge.env",
        "Evaluation": "diffpolicy.edge.evaluation",
        "Replay": "diffpolicy.edge.evaluation",
        "evaluate": "diffpolicy.edge.evaluation",
        "replay": "diffpolicy.edge.evaluation",
        "play_episodes": "diffpolicy.edge.evaluation",
        "HEURISTICS": "diffpolicy.edge.heuristics",
        "FleetPolicy": "diffpolicy.edge.fleet_policy",
        "Heuristic": "diffpolicy.edge.heuristic",
        "Delays": "diffpolicy.edge.metrics",
        "Result": "diffpolicy.edge.metrics",
        "Fleet": "diffpolicy.edge.queueing",
        "SlotTasks": "diffpolicy.edge.queueing",
        "assign_in_order": "diffpolicy.edge.queueing",
        "next_queue_gcycles": "diffpolicy.edge.queueing",
        "slot_delays_s": "diffpolicy.edge.queueing",
        "unloaded_delay_s": "diffpolicy.edge.queueing",
        "work_ahead_gcycles": "diffpolicy.edge.queueing",
        "work_sent_gcycles": "diffpolicy.edge.queueing",
        "RequestType": "diffpolicy.edge.request_types",
        "RequestWorkload": "diffpolicy.edge.requests",
        "make_policy": "diffpolicy.edge.resolve",
        "make_method": "diffpolicy.edge.resolve",
        "Scenario": "diffpolicy.edge.scenario",
        "Server": "diffpolicy.edge.server",
        "ModelTimes": "diffpolicy.edge.service_times",
        "ServerService": "diffpolicy.edge.service_times",
        "Sweep": "diffpolicy.edge.sweep",
        "run_sweep": "diffpolicy.edge.sweep",
        "TaskList": "diffpolicy.edge.tasks",
        "TraceWorkload": "diffpolicy.edge.trace_workload",
        "task_transitions": "diffpolicy.edge.transitions",
        "released_transitions": "diffpolicy.edge.transitions",
        "Workload": "diffpolicy.edge.workload",
        "Stream": "diffpolicy.edge.workload",
    },
)
__all__ = (
    "HEURISTICS",
    "Availability",
    "Comparison",
    "Delays",
    "Evaluation",
    "Fleet",
    "FleetPolicy",
    "Heuristic",
    "ModelTimes",
    "OffloadingEnv",
    "Plan",
    "Replay",
    "RequestType",
    "RequestWorkload",
    "Result",
    "Scenario",
    "Server",
    "ServerService",
    "SlotTasks",
    "Stream",
    "Sweep",
    "TaskList",
    "TraceWorkload",
    "Workload",
    "assign_in_order",
    "evaluate",
    "make_method",
    "make_policy",
    "next_queue_gcycles",
    "play_episodes",
    "released_transitions",
    "replay",
    "run_sweep",
    "slot_delays_s",
    "task_transitions",
    "unloaded_delay_s",
    "work_ahead_gcycles",
    "work_sent_gcycles",
)
