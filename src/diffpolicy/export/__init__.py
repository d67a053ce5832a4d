"""Policies as files that need neither their code nor, with ONNX, torch: pure decision functions."""

from diffpolicy.export.decision import Decision
from diffpolicy.export.runtime import ExportedDecision
from diffpolicy.export.write import FORMATS, export_decision
from diffpolicy.policies.pure_decision import DecisionInput

__all__ = ["FORMATS", "Decision", "DecisionInput", "ExportedDecision", "export_decision"]
