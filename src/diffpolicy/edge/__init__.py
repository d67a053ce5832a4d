"""The edge-AIGC offloading problem: which server generates each image, so that users wait least."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.env.env import OffloadingEnv as OffloadingEnv
    from diffpolicy.edge.env.transitions import released_transitions as released_transitions
    from diffpolicy.edge.env.transitions import task_transitions as task_transitions
    from diffpolicy.edge.evaluation import Replay as Replay
    from diffpolicy.edge.evaluation import evaluate as evaluate
    from diffpolicy.edge.evaluation import play_episodes as play_episodes
    from diffpolicy.edge.evaluation import replay as replay
    from diffpolicy.edge.metrics import Delays as Delays
    from diffpolicy.edge.metrics import Evaluation as Evaluation
    from diffpolicy.edge.metrics import Result as Result
    from diffpolicy.edge.physics.queueing import ServerSpeeds as ServerSpeeds
    from diffpolicy.edge.physics.queueing import SlotTasks as SlotTasks
    from diffpolicy.edge.physics.queueing import assign_in_order as assign_in_order
    from diffpolicy.edge.physics.queueing import next_queue_gcycles as next_queue_gcycles
    from diffpolicy.edge.physics.queueing import slot_delays_s as slot_delays_s
    from diffpolicy.edge.physics.queueing import unloaded_delay_s as unloaded_delay_s
    from diffpolicy.edge.physics.queueing import work_ahead_gcycles as work_ahead_gcycles
    from diffpolicy.edge.physics.queueing import work_sent_gcycles as work_sent_gcycles
    from diffpolicy.edge.pricing.policy import FleetPolicy as FleetPolicy
    from diffpolicy.edge.problem import OffloadingProblem as OffloadingProblem
    from diffpolicy.edge.resolve import make_policy as make_policy
    from diffpolicy.edge.rules.registry import HEURISTICS as HEURISTICS
    from diffpolicy.edge.rules.rule import Heuristic as Heuristic
    from diffpolicy.edge.scenario.availability import Availability as Availability
    from diffpolicy.edge.scenario.scenario import Scenario as Scenario
    from diffpolicy.edge.scenario.server import Server as Server
    from diffpolicy.edge.scenario.service_times import ModelTimes as ModelTimes
    from diffpolicy.edge.scenario.service_times import ServerService as ServerService
    from diffpolicy.edge.workload.by_size import SizedWorkload as SizedWorkload
    from diffpolicy.edge.workload.lad_ts import Workload as Workload
    from diffpolicy.edge.workload.mix import RequestType as RequestType
    from diffpolicy.edge.workload.recorded import TraceWorkload as TraceWorkload
    from diffpolicy.edge.workload.requests import RequestWorkload as RequestWorkload
    from diffpolicy.edge.workload.seeds import Stream as Stream
    from diffpolicy.edge.workload.task_file import TaskList as TaskList
    from diffpolicy.experiments.comparison import Comparison as Comparison
    from diffpolicy.experiments.method_names import make_method as make_method
    from diffpolicy.experiments.plan import Plan as Plan
    from diffpolicy.experiments.sweep import Sweep as Sweep
    from diffpolicy.experiments.sweep import run_sweep as run_sweep

attach(
    __name__,
    {
        "Availability": "diffpolicy.edge.scenario.availability",
        "Plan": "diffpolicy.experiments.plan",
        "Comparison": "diffpolicy.experiments.comparison",
        "OffloadingEnv": "diffpolicy.edge.env.env",
        "OffloadingProblem": "diffpolicy.edge.problem",
        "Evaluation": "diffpolicy.edge.metrics",
        "Replay": "diffpolicy.edge.evaluation",
        "evaluate": "diffpolicy.edge.evaluation",
        "replay": "diffpolicy.edge.evaluation",
        "play_episodes": "diffpolicy.edge.evaluation",
        "HEURISTICS": "diffpolicy.edge.rules.registry",
        "FleetPolicy": "diffpolicy.edge.pricing.policy",
        "Heuristic": "diffpolicy.edge.rules.rule",
        "Delays": "diffpolicy.edge.metrics",
        "Result": "diffpolicy.edge.metrics",
        "ServerSpeeds": "diffpolicy.edge.physics.queueing",
        "SlotTasks": "diffpolicy.edge.physics.queueing",
        "assign_in_order": "diffpolicy.edge.physics.queueing",
        "next_queue_gcycles": "diffpolicy.edge.physics.queueing",
        "slot_delays_s": "diffpolicy.edge.physics.queueing",
        "unloaded_delay_s": "diffpolicy.edge.physics.queueing",
        "work_ahead_gcycles": "diffpolicy.edge.physics.queueing",
        "work_sent_gcycles": "diffpolicy.edge.physics.queueing",
        "RequestType": "diffpolicy.edge.workload.mix",
        "RequestWorkload": "diffpolicy.edge.workload.requests",
        "make_policy": "diffpolicy.edge.resolve",
        "make_method": "diffpolicy.experiments.method_names",
        "Scenario": "diffpolicy.edge.scenario.scenario",
        "Server": "diffpolicy.edge.scenario.server",
        "ModelTimes": "diffpolicy.edge.scenario.service_times",
        "ServerService": "diffpolicy.edge.scenario.service_times",
        "Sweep": "diffpolicy.experiments.sweep",
        "run_sweep": "diffpolicy.experiments.sweep",
        "TaskList": "diffpolicy.edge.workload.task_file",
        "TraceWorkload": "diffpolicy.edge.workload.recorded",
        "task_transitions": "diffpolicy.edge.env.transitions",
        "released_transitions": "diffpolicy.edge.env.transitions",
        "SizedWorkload": "diffpolicy.edge.workload.by_size",
        "Workload": "diffpolicy.edge.workload.lad_ts",
        "Stream": "diffpolicy.edge.workload.seeds",
    },
)
__all__ = (
    "HEURISTICS",
    "Availability",
    "Comparison",
    "Delays",
    "Evaluation",
    "FleetPolicy",
    "Heuristic",
    "ModelTimes",
    "OffloadingEnv",
    "OffloadingProblem",
    "Plan",
    "Replay",
    "RequestType",
    "RequestWorkload",
    "Result",
    "Scenario",
    "Server",
    "ServerService",
    "ServerSpeeds",
    "SizedWorkload",
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
