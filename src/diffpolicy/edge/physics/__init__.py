"""Pure functions of queues: waiting, service times, outages and resends."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.physics.queueing import ServerSpeeds as ServerSpeeds
    from diffpolicy.edge.physics.queueing import SlotTasks as SlotTasks
    from diffpolicy.edge.physics.queueing import assign_in_order as assign_in_order
    from diffpolicy.edge.physics.queueing import next_queue_gcycles as next_queue_gcycles
    from diffpolicy.edge.physics.queueing import slot_delays_s as slot_delays_s
    from diffpolicy.edge.physics.queueing import unloaded_delay_s as unloaded_delay_s
    from diffpolicy.edge.physics.queueing import work_ahead_gcycles as work_ahead_gcycles
    from diffpolicy.edge.physics.queueing import work_sent_gcycles as work_sent_gcycles

attach(
    __name__,
    {
        "ServerSpeeds": "diffpolicy.edge.physics.queueing",
        "SlotTasks": "diffpolicy.edge.physics.queueing",
        "assign_in_order": "diffpolicy.edge.physics.queueing",
        "next_queue_gcycles": "diffpolicy.edge.physics.queueing",
        "slot_delays_s": "diffpolicy.edge.physics.queueing",
        "unloaded_delay_s": "diffpolicy.edge.physics.queueing",
        "work_ahead_gcycles": "diffpolicy.edge.physics.queueing",
        "work_sent_gcycles": "diffpolicy.edge.physics.queueing",
    },
)
__all__ = (
    "ServerSpeeds",
    "SlotTasks",
    "assign_in_order",
    "next_queue_gcycles",
    "slot_delays_s",
    "unloaded_delay_s",
    "work_ahead_gcycles",
    "work_sent_gcycles",
)
