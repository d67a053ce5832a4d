"""What the end of a chain means: heads, made from the spec of an action."""

from diffpolicy.policies.heads.bounded import BoundedHead
from diffpolicy.policies.heads.categorical import CategoricalHead
from diffpolicy.policies.heads.composite import CompositeHead
from diffpolicy.policies.heads.head import MOST_JOINT, Head
from diffpolicy.policies.heads.joint import JointHead
from diffpolicy.policies.heads.multi_categorical import MultiCategoricalHead
from diffpolicy.policies.heads.registry import for_items, head_for, head_from_dict, head_of_width, named_head
from diffpolicy.policies.heads.simplex import SimplexHead
from diffpolicy.policies.heads.token import TokenHead
from diffpolicy.policies.heads.vector import VectorHead

__all__ = [
    "MOST_JOINT",
    "BoundedHead",
    "CategoricalHead",
    "CompositeHead",
    "Head",
    "JointHead",
    "MultiCategoricalHead",
    "SimplexHead",
    "TokenHead",
    "VectorHead",
    "for_items",
    "head_for",
    "head_from_dict",
    "head_of_width",
    "named_head",
]
