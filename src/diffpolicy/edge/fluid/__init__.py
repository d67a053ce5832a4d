"""The fluid limit, in which an episode has gradients."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.fluid.rollout import FluidRollout as FluidRollout
    from diffpolicy.edge.fluid.rollout import FluidSlot as FluidSlot
    from diffpolicy.edge.fluid.rollout import SizeTable as SizeTable
    from diffpolicy.edge.fluid.rollout import fluid_slot as fluid_slot
    from diffpolicy.edge.fluid.rollout import size_edges as size_edges

__getattr__, __dir__ = attach(
    __name__,
    {
        "FluidRollout": "diffpolicy.edge.fluid.rollout",
        "FluidSlot": "diffpolicy.edge.fluid.rollout",
        "SizeTable": "diffpolicy.edge.fluid.rollout",
        "fluid_slot": "diffpolicy.edge.fluid.rollout",
        "size_edges": "diffpolicy.edge.fluid.rollout",
    },
)
__all__ = (
    "FluidRollout",
    "FluidSlot",
    "SizeTable",
    "fluid_slot",
    "size_edges",
)
