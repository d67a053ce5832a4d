"""Real servers: what a model's calls take on one, measured and written as a profile."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.hardware.adapters.diffusers_ import DiffusersAdapter as DiffusersAdapter
    from diffpolicy.edge.hardware.adapters.http_ import HttpAdapter as HttpAdapter
    from diffpolicy.edge.hardware.adapters.simulated_ import SimulatedAdapter as SimulatedAdapter
    from diffpolicy.edge.hardware.calibration import calibrate as calibrate
    from diffpolicy.edge.hardware.measuring.grid import Grid as Grid
    from diffpolicy.edge.hardware.measuring.profiler import profile as profile
    from diffpolicy.edge.hardware.schema.server_profile import ServerProfile as ServerProfile
    from diffpolicy.edge.hardware.server_adapter import Description as Description
    from diffpolicy.edge.hardware.server_adapter import GenerateRequest as GenerateRequest
    from diffpolicy.edge.hardware.server_adapter import GenerateTiming as GenerateTiming
    from diffpolicy.edge.hardware.server_adapter import ServerAdapter as ServerAdapter

attach(
    __name__,
    {
        "Description": "diffpolicy.edge.hardware.server_adapter",
        "GenerateRequest": "diffpolicy.edge.hardware.server_adapter",
        "GenerateTiming": "diffpolicy.edge.hardware.server_adapter",
        "ServerAdapter": "diffpolicy.edge.hardware.server_adapter",
        "calibrate": "diffpolicy.edge.hardware.calibration",
        "DiffusersAdapter": "diffpolicy.edge.hardware.adapters.diffusers_",
        "Grid": "diffpolicy.edge.hardware.measuring.grid",
        "HttpAdapter": "diffpolicy.edge.hardware.adapters.http_",
        "profile": "diffpolicy.edge.hardware.measuring.profiler",
        "ServerProfile": "diffpolicy.edge.hardware.schema.server_profile",
        "SimulatedAdapter": "diffpolicy.edge.hardware.adapters.simulated_",
    },
)
__all__ = (
    "Description",
    "DiffusersAdapter",
    "GenerateRequest",
    "GenerateTiming",
    "Grid",
    "HttpAdapter",
    "ServerAdapter",
    "ServerProfile",
    "SimulatedAdapter",
    "calibrate",
    "profile",
)
