"""Real servers: what a model's calls take on one, measured and written as a profile."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.hardware.adapter import Description as Description
    from diffpolicy.edge.hardware.adapter import GenerateRequest as GenerateRequest
    from diffpolicy.edge.hardware.adapter import GenerateTiming as GenerateTiming
    from diffpolicy.edge.hardware.adapter import ServerAdapter as ServerAdapter
    from diffpolicy.edge.hardware.calibration import calibrate as calibrate
    from diffpolicy.edge.hardware.diffusers_adapter import DiffusersAdapter as DiffusersAdapter
    from diffpolicy.edge.hardware.grid import Grid as Grid
    from diffpolicy.edge.hardware.http_adapter import HttpAdapter as HttpAdapter
    from diffpolicy.edge.hardware.profiler import profile as profile
    from diffpolicy.edge.hardware.server_profile import ServerProfile as ServerProfile
    from diffpolicy.edge.hardware.simulated_adapter import SimulatedAdapter as SimulatedAdapter

__getattr__, __dir__ = attach(
    __name__,
    {
        "Description": "diffpolicy.edge.hardware.adapter",
        "GenerateRequest": "diffpolicy.edge.hardware.adapter",
        "GenerateTiming": "diffpolicy.edge.hardware.adapter",
        "ServerAdapter": "diffpolicy.edge.hardware.adapter",
        "calibrate": "diffpolicy.edge.hardware.calibration",
        "DiffusersAdapter": "diffpolicy.edge.hardware.diffusers_adapter",
        "Grid": "diffpolicy.edge.hardware.grid",
        "HttpAdapter": "diffpolicy.edge.hardware.http_adapter",
        "profile": "diffpolicy.edge.hardware.profiler",
        "ServerProfile": "diffpolicy.edge.hardware.server_profile",
        "SimulatedAdapter": "diffpolicy.edge.hardware.simulated_adapter",
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
