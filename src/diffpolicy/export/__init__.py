"""Policies as files that need neither their code nor, with ONNX, torch: pure decision functions."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy._decision_input import DecisionInput as DecisionInput
    from diffpolicy.export.decision import Decision as Decision
    from diffpolicy.export.runtime import ExportedDecision as ExportedDecision
    from diffpolicy.export.write import FORMATS as FORMATS
    from diffpolicy.export.write import export_decision as export_decision

_HERE = "diffpolicy.export."
attach(
    __name__,
    {
        "Decision": _HERE + "decision",
        "DecisionInput": "diffpolicy._decision_input",
        "ExportedDecision": _HERE + "runtime",
        "FORMATS": _HERE + "write",
        "export_decision": _HERE + "write",
    },
)
__all__ = ("FORMATS", "Decision", "DecisionInput", "ExportedDecision", "export_decision")
