"""`SimulatedAdapter`: a server that takes its times from a profile."""

from __future__ import annotations

import math
import random
import threading
import time

from diffpolicy.edge.hardware.schema.records import ColdStart
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.hardware.server_adapter import Description, GenerateRequest, GenerateTiming


class SimulatedAdapter:
    """Draws the times of calls around a profile's law; generates nothing.

    Calls from several threads wait for one another, as they do for one device.

    Args:
        profile: a profile, or what `ServerProfile.load` takes.
        sleep: whether a call lasts as long as it says.
        scatter_sigma: standard deviation of the logarithm of a call's time; by default the profile's, or 0.
        seed: of its own generator.

    Example:
        >>> server = SimulatedAdapter("mlenergy-h100-sd3-medium", scatter_sigma=0.0)
        >>> round(server.generate(GenerateRequest("a cat", 1024, 1024, steps=25)).total_s, 2)
        1.9
    """

    device: str | None = None

    def __init__(
        self, profile: ServerProfile | str, *, sleep: bool = False, scatter_sigma: float | None = None, seed: int = 0
    ) -> None:
        self.profile = ServerProfile.load(profile) if isinstance(profile, str) else profile
        self.sleep = sleep
        self.scatter_sigma = (self.profile.scatter_sigma or 0.0) if scatter_sigma is None else scatter_sigma
        self.concurrent = sleep
        self._random = random.Random(seed)
        self._one_at_a_time = threading.Lock()

    def start(self) -> ColdStart:
        """The profile's cold start, without its first image, which a call gives."""
        cold = self.profile.cold_start
        if self.sleep:
            time.sleep((cold.build_s or 0.0) + (cold.load_s or 0.0))
        return ColdStart(cold.import_s, cold.build_s, cold.load_s, None, cold.switch_s)

    def describe(self) -> Description:
        profile = self.profile
        return Description(profile.server, profile.software, profile.model, profile.memory)

    def generate(self, request: GenerateRequest) -> GenerateTiming:
        """A call: every part of it longer or shorter by one lognormal factor of median 1.

        Args:
            request: what is asked for.

        Returns:
            What it took.
        """
        size = request.width, request.height
        none, one = (self.profile.service_s(*size, steps, request.batch) for steps in (0, 1))
        luck = math.exp(self._random.gauss(0.0, self.scatter_sigma)) if self.scatter_sigma else 1.0
        text_s, step_s, decode_s = (
            x * luck for x in (self.profile.fit.text_s, one - none, none - self.profile.fit.text_s)
        )
        total_s = text_s + request.steps * step_s + decode_s
        begun = time.perf_counter()
        if self.sleep:
            with self._one_at_a_time:
                time.sleep(total_s)
            waited_s = time.perf_counter() - begun
            return GenerateTiming(waited_s, text_s, (step_s,) * request.steps, decode_s)
        return GenerateTiming(total_s, text_s, (step_s,) * request.steps, decode_s)

    def step_flops(self, width: int, height: int, batch: int) -> None:
        """Not known."""

    def close(self) -> None:
        """Nothing to free."""
