"""How the learned price is trained: random fleets, a compiled player, evolution."""
