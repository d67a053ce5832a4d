"""What a system is: servers, stations, availability, the scenario file, the paper's draws."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.scenario.availability import Availability as Availability
    from diffpolicy.edge.scenario.scenario import SCHEMA as SCHEMA
    from diffpolicy.edge.scenario.scenario import Scenario as Scenario
    from diffpolicy.edge.scenario.server import Server as Server
    from diffpolicy.edge.scenario.service_times import ModelTimes as ModelTimes
    from diffpolicy.edge.scenario.service_times import ServerService as ServerService

attach(
    __name__,
    {
        "Availability": "diffpolicy.edge.scenario.availability",
        "ModelTimes": "diffpolicy.edge.scenario.service_times",
        "SCHEMA": "diffpolicy.edge.scenario.scenario",
        "Scenario": "diffpolicy.edge.scenario.scenario",
        "Server": "diffpolicy.edge.scenario.server",
        "ServerService": "diffpolicy.edge.scenario.service_times",
    },
)
__all__ = (
    "SCHEMA",
    "Availability",
    "ModelTimes",
    "Scenario",
    "Server",
    "ServerService",
)
