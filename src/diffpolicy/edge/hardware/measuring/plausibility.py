"""Whether a measured speed can be true: no device does more operations a second than its peak."""

from __future__ import annotations

import re
from collections.abc import Callable

from diffpolicy.edge.hardware.schema.records import Fit, ServerInfo
from diffpolicy.errors import InputError

PEAK_FLOPS = {
    "GH200": 989e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10": 125e12,
    "A10G": 125e12,
    "RTX 4090": 165e12,
}
"""Dense half-precision operations a second, by the makers' data sheets; SXM where there are several."""
CORE_FLOPS = 500e9
"""More than a core does in float32: two 512-bit units do 64 operations a cycle, at 5 GHz, and half as much again."""
LEAST_SHARE = 0.02
"""A GPU that reaches less of its peak is waiting for something else."""

StepFlops = Callable[[int, int, int], float | None]


def peak_flops(server: ServerInfo, dtype: str | None) -> float | None:
    """Operations a second that the server cannot exceed; None where that is not known."""
    if server.device == "cpu":
        # matrix units for half precision do many times more than the vector units
        return server.cores * CORE_FLOPS if server.cores is not None and dtype == "float32" else None
    for name, peak in PEAK_FLOPS.items():
        if server.gpu and re.search(rf"\b{name}\b", server.gpu):
            return peak * server.count
    return None


def check_speed(fit: Fit, server: ServerInfo, dtype: str | None, step_flops: StepFlops) -> list[str]:
    """Compares the fitted steps with the device's peak.

    Args:
        dtype: of the weights.
        step_flops: operations of one step by width, height and batch; None where they are not known.

    Returns:
        Warnings, each a sentence.

    Raises:
        InputError: a step implies more than the peak, so the measurement is wrong.
    """
    peak = peak_flops(server, dtype)
    slow: list[tuple[float, str]] = []
    for size in fit.sizes if peak else ():
        flops = step_flops(size.width, size.height, size.batch)
        if flops is None or peak is None:
            continue
        implied = flops / size.step_s
        what = f"{size.width}x{size.height}, batch {size.batch}"
        if implied > peak:
            raise InputError(
                f"the measurement of {what} is impossible: {size.step_s:.3g} s a step implies {implied / 1e12:.3g} "
                f"TFLOP/s, and the peak of {server.gpu or server.device} is {peak / 1e12:.3g}"
            )
        if server.device != "cpu" and implied < LEAST_SHARE * peak:
            slow.append((implied / peak, what))
    if not slow:
        return []
    share, what = min(slow)
    return [
        f"steps of {what} reach {100 * share:.2g} % of the peak of {server.gpu}: the model is too small for it, or "
        "something else slows it down"
    ]
