"""`ChoicePolicy`: `Policy` by its name of before."""

from diffpolicy.policies.policy import Policy as ChoicePolicy

__all__ = ["ChoicePolicy"]
