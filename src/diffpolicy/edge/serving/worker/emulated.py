"""`EmulatedEngine`: takes the times that a server profile says, and makes black pictures."""

from __future__ import annotations

import asyncio
import heapq
import time

from diffpolicy._total import total
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.serving.worker.engine import Run, StoppedError
from diffpolicy.edge.serving.worker.job import Job, Standard
from diffpolicy.edge.serving.worker.png import blank_png

COARSE_S = 0.0015
"""By how much the event loop may wake too late: it counts in milliseconds, and rounds up."""


class EmulatedEngine:
    """Sleeps as long as a measured server would work, then gives black pictures.

    A request begins when it came or when the one before it should have ended, and ends at an absolute time, so that
    late wakings do not add up. Times are the profile's law, without its scatter.

    Args:
        profile: of a server. speed: how many times as fast this one is. scale: by which all times are multiplied.
        slots: requests at once.

    Example:
        >>> engine = EmulatedEngine(ServerProfile.load("mlenergy-h100-sd3-medium"), speed=2.0, scale=0.05)
        >>> round(engine.expected_s(Job("a cat", 1024, 1024, steps=25)), 4)
        0.0476
    """

    kinds: tuple[str, ...] = ("png",)
    edits = True

    def __init__(self, profile: ServerProfile, *, speed: float = 1.0, scale: float = 1.0, slots: int = 1) -> None:
        self.profile, self.speed, self.scale, self.slots = profile, speed, scale, slots
        self.model = profile.model.name
        point = max(profile.points, key=lambda p: (p.width * p.height, p.steps), default=None)
        size = max(profile.fit.sizes, key=lambda s: s.width * s.height)
        self.standard = Standard(size.width, size.height, 25 if point is None else point.steps)
        self._free_s = [0.0] * slots

    @property
    def mean_s(self) -> float:
        """Seconds of a request, on average over the sizes and steps that were measured, one image each."""
        points = {(p.width, p.height, p.steps) for p in self.profile.points}
        points = points or {(self.standard.width, self.standard.height, self.standard.steps)}
        return total(self._seconds(*point, 1) for point in points) / len(points)

    async def load(self) -> None:
        """Takes no time."""

    def expected_s(self, job: Job) -> float:
        """What it will take. Args: job: any."""
        return self._seconds(job.width, job.height, job.steps, job.images)

    async def generate(self, job: Job, run: Run) -> list[bytes]:
        """Sleeps, then gives black pictures of the size that was asked for.

        Args:
            job: what is to be made. run: is told each step, and tells when to end.

        Raises:
            StoppedError: it was asked to end, at the next step's end.
        """
        before_s = heapq.heappop(self._free_s)
        begin_s = max(run.begin_s, before_s)
        text_s, step_s, total_s = self._parts(job)
        end_s = begin_s + total_s
        picture = blank_png(job.width, job.height)
        try:
            for index in range(job.partials):
                step = job.steps * (index + 1) // (job.partials + 1)
                await self._until(begin_s + text_s + step * step_s, run, begin_s + text_s, step_s)
                run.step(step)
                run.show(index, picture)
            await self._until(end_s, run, begin_s + text_s, step_s)
            run.steps = job.steps
        except (StoppedError, asyncio.CancelledError):
            end_s = asyncio.get_running_loop().time()
            raise
        finally:
            heapq.heappush(self._free_s, end_s)
        return [picture] * job.images

    def _seconds(self, width: int, height: int, steps: int, images: int) -> float:
        return self.profile.service_s(width, height, steps, images) * self.scale / self.speed

    def _parts(self, job: Job) -> tuple[float, float, float]:
        """Seconds before the first step, of a step, and of all."""
        total_s, none_s = (self._seconds(job.width, job.height, n, job.images) for n in (job.steps, 0))
        text_s = self.profile.fit.text_s * self.scale / self.speed
        return text_s, (total_s - none_s) / job.steps, total_s

    async def _until(self, at_s: float, run: Run, first_s: float, step_s: float) -> None:
        """Sleeps; when the end is asked for, to the end of the step that is under way."""
        loop = asyncio.get_running_loop()
        asked = asyncio.ensure_future(run.stop_asked())
        try:
            while (left_s := at_s - loop.time() - COARSE_S) > 0:
                await asyncio.wait({asked}, timeout=left_s)
                if run.stopped:
                    done = max(int((loop.time() - first_s) // step_s) + 1, 0) if step_s > 0 else 0
                    await asyncio.sleep(min(first_s + done * step_s, at_s) - loop.time())
                    run.step(done)  # raises, unless somebody came back for it
                    asked = asyncio.ensure_future(run.stop_asked())
        finally:
            asked.cancel()
        run.step(run.steps)
        time.sleep(max(at_s - loop.time(), 0.0))  # too short for the event loop, which has nothing else to do for it
