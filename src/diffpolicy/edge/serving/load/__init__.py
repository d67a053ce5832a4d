"""Load for a service: what is asked when, and what came of it."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.serving.load.plan import Ask as Ask
    from diffpolicy.edge.serving.load.plan import mix_of as mix_of
    from diffpolicy.edge.serving.load.plan import plan as plan
    from diffpolicy.edge.serving.load.report import LoadReport as LoadReport
    from diffpolicy.edge.serving.load.report import Outcome as Outcome
    from diffpolicy.edge.serving.load.send import send as send

_HERE = "diffpolicy.edge.serving.load."
attach(
    __name__,
    {
        "Ask": _HERE + "plan",
        "LoadReport": _HERE + "report",
        "Outcome": _HERE + "report",
        "mix_of": _HERE + "plan",
        "plan": _HERE + "plan",
        "send": _HERE + "send",
    },
)
__all__ = ("Ask", "LoadReport", "Outcome", "mix_of", "plan", "send")
