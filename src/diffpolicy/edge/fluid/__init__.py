"""The fluid limit, in which an episode has gradients."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.fluid.rollout import FluidRollout as FluidRollout
    from diffpolicy.edge.fluid.size_table import SizeTable as SizeTable
    from diffpolicy.edge.fluid.size_table import size_edges as size_edges
    from diffpolicy.edge.physics.fluid import FluidSlot as FluidSlot
    from diffpolicy.edge.physics.fluid import fluid_slot as fluid_slot

attach(
    __name__,
    {
        "FluidRollout": "diffpolicy.edge.fluid.rollout",
        "FluidSlot": "diffpolicy.edge.physics.fluid",
        "SizeTable": "diffpolicy.edge.fluid.size_table",
        "fluid_slot": "diffpolicy.edge.physics.fluid",
        "size_edges": "diffpolicy.edge.fluid.size_table",
    },
)
__all__ = (
    "FluidRollout",
    "FluidSlot",
    "SizeTable",
    "fluid_slot",
    "size_edges",
)
