"""From measured servers to a scenario: what `diffpolicy calibrate` does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffpolicy import _validate as check
from diffpolicy.edge.hardware.measuring.grid import parse_numbers, parse_sizes
from diffpolicy.edge.hardware.schema.server_profile import ServerProfile
from diffpolicy.edge.scenario.availability import Availability
from diffpolicy.edge.scenario.scenario import Scenario, Server
from diffpolicy.edge.scenario.service_times import ANY_MODEL, ModelTimes, ServerService
from diffpolicy.edge.workload.mix import RequestType
from diffpolicy.edge.workload.requests import RequestWorkload
from diffpolicy.errors import InputError

PROMPT_MBIT = 0.01
"""A prompt and its parameters: about a kilobyte."""
BITS_PER_PIXEL = 12.0
"""Of an image sent back as PNG: half of 24 bits, as photographs need."""


def calibrate(
    profiles: Sequence[ServerProfile],
    *,
    load: float = 0.8,
    slots: int = 200,
    rate_mbit_per_s: float = 1000.0,
    mix: Sequence[RequestType] | None = None,
    accept_poor_fit: bool = False,
    joins: bool = False,
    cold: bool = False,
    availability: Availability | None = None,
) -> Scenario:
    """Makes a scenario from profiles: one server for each, behind one dispatcher, under Poisson arrivals.

    Work is counted in reference seconds: a request's work is what it takes on the first profile's server, and a
    server's capacity is how many times as fast as that one it serves the mix. Its measured times become its service
    model.

    Args:
        profiles: at least one; the first is the reference. Several may be alike.
        load: work offered / (capacity x time) of the workload.
        slots: requests of an episode.
        rate_mbit_per_s: of the link to each server, Mbit/s.
        mix: what is asked for, any work; by default the sizes and steps that all profiles were measured at, in equal
            shares.
        accept_poor_fit: take profiles whose law explains less than 0.9 of the variance.
        joins: whether like requests that wait share a batch.
        cold: whether each server must load its model first.
        availability: outages of every server; the load counts them off.

    Returns:
        The scenario, with a `RequestWorkload` that offers `load`; its slot is the mean time of a request on the first
        server.

    Raises:
        InputError: no profile, a poor or unfinished one, no mix that all were measured at, or a value out of range.

    Example:
        >>> profiles = [ServerProfile.load(f"mlenergy-{gpu}-sd3-medium") for gpu in ("a100", "h100")]
        >>> scenario = calibrate(profiles, load=0.9)
        >>> [round(server.capacity_gcycles_per_s, 2) for server in scenario.servers], round(scenario.load_factor(), 2)
        ([1.0, 1.99], 0.9)
    """
    if not profiles:
        raise InputError("a calibration needs at least one profile, got none")
    for profile in profiles:
        if not profile.fit.ok and not accept_poor_fit:
            r2 = "unknown" if profile.fit.r2 is None else f"{profile.fit.r2:.3f}"
            raise InputError(
                f"profile {profile.name} fits poorly (R2 {r2}); measure it again on an idle machine, or accept it with "
                "--accept-poor-fit"
            )
    kinds = tuple(default_mix(profiles) if mix is None else mix)
    services = [service_of(profile, joins=joins, cold=cold) for profile in profiles]
    weight = np.array([kind.weight for kind in kinds])
    mean_s = [float(weight @ seconds(service, kinds) / weight.sum()) for service in services]
    reference_s = seconds(services[0], kinds)
    counted = tuple(
        RequestType(**{**kind.to_dict(), "gcycles_per_step": float(s) / kind.steps})
        for kind, s in zip(kinds, reference_s, strict=True)
    )
    servers = tuple(
        Server(
            mean_s[0] / mean,
            rate_mbit_per_s,
            name=profile.name,
            power_w=None if profile.power is None else profile.power.busy_w,
            availability=availability,
            service=service,
        )
        for profile, service, mean in zip(profiles, services, mean_s, strict=True)
    )
    workload = RequestWorkload("poisson", 1.0, counted)
    scenario = Scenario(mean_s[0], servers, slots=slots, stations=(None,), workload=workload)
    workload = workload.with_load(load, scenario.capacity_gcycles_per_s)
    return Scenario(mean_s[0], servers, slots=slots, stations=(None,), workload=workload)


def service_of(profile: ServerProfile, *, joins: bool = False, cold: bool = False) -> ServerService:
    """The service model of a profile, for every model name.

    Args:
        profile: its fit at batch 1 gives times by size; larger batches of the size that has most give the gain.
        joins, cold: see `calibrate`.
    """
    least = min(size.batch for size in profile.fit.sizes)
    by_pixels: dict[int, list[tuple[float, float]]] = {}
    for size in profile.fit.sizes:
        if size.batch == least:
            by_pixels.setdefault(size.width * size.height, []).append((size.step_s / least, size.decode_s / least))
    pixels = sorted(by_pixels)
    step_s, decode_s = (tuple(float(np.mean([x[i] for x in by_pixels[p]])) for p in pixels) for i in (0, 1))
    times = ModelTimes(profile.fit.text_s, tuple(p / 1e6 for p in pixels), step_s, decode_s)
    load_s = profile.switch_s if profile.switch_s is not None else profile.cold_start.load_s
    return ServerService(
        {ANY_MODEL: times},
        switch_s=load_s or 0.0,
        cold_s=(load_s or profile.cold_start.build_s or 0.0) if cold else 0.0,
        batch=batch_gain(profile),
        joins=joins,
        scatter=profile.scatter_sigma or 0.0,
        slots=profile.slots or 1,
        together=profile.together,
    )


def batch_gain(profile: ServerProfile) -> tuple[float, ...]:
    """Time of a batch of 1, 2, ... images over that many times the time of one, as far as it was measured.

    Between measured batches the batch's time is linear; it never falls as the batch grows.
    """
    batches: dict[tuple[int, int], dict[int, float]] = {}
    for size in profile.fit.sizes:
        batches.setdefault((size.width, size.height), {})[size.batch] = size.step_s
    known = max(batches.values(), key=len)
    if 1 not in known or len(known) == 1:
        return (1.0,)
    sizes = sorted(known)
    whole = np.maximum.accumulate([known[b] / known[1] for b in sizes])
    each = np.arange(1, sizes[-1] + 1)
    return tuple(float(x) for x in np.interp(each, sizes, whole) / each)


def default_mix(profiles: Sequence[ServerProfile]) -> tuple[RequestType, ...]:
    """The sizes and steps that all profiles were measured at, in equal shares.

    Raises:
        InputError: there are none.
    """
    points = [{(p.width, p.height, p.steps) for p in profile.points} for profile in profiles]
    for k, profile in enumerate(profiles):
        if not set.intersection(*points[: k + 1]):
            raise InputError(
                f"profiles {profiles[0].name} and {profile.name} were measured at no size and number of steps that all "
                "profiles share; name the sizes and steps of the requests, such as --mix 512:20,768x1024:30"
            )
    return tuple(one_image(*point) for point in sorted(set.intersection(*points)))


def parse_mix(text: str) -> tuple[RequestType, ...]:
    """`512:20,768x1024:30` as requests in equal shares: sizes in pixels, one number a square, and denoising steps.

    Raises:
        InputError: the text is of another form.
    """
    kinds = []
    for part in text.split(","):
        size, sign, steps = part.partition(":")
        if not sign:
            raise InputError(f"--mix must be sizes and steps such as 512:20,768x1024:30, got {check.show(text)}")
        kinds.append(one_image(*parse_sizes(size, "--mix")[0], parse_numbers(steps, "steps of --mix")[0]))
    return tuple(kinds)


def one_image(width: int, height: int, steps: int) -> RequestType:
    """A request of one image, its work not known yet. Args: width, height: pixels. steps: denoising steps."""
    return RequestType(
        width=width,
        height=height,
        steps=steps,
        gcycles_per_step=1.0,
        input_mbit=PROMPT_MBIT,
        result_mbit=width * height * BITS_PER_PIXEL / 1e6,
    )


def seconds(service: ServerService, kinds: Sequence[RequestType]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What each kind of request takes on a server, `[M]`."""
    columns = np.array([(k.width * k.height / 1e6, k.steps, k.images) for k in kinds], dtype=np.float64).T
    return np.array(
        [service.seconds(kind.model, *(column[i : i + 1] for column in columns))[0] for i, kind in enumerate(kinds)]
    )
