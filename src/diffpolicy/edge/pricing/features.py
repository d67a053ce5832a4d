"""What a price is made of: the constants that the deciding tensors and the compiled trainer share."""

from __future__ import annotations

FEATURES = 14
"""F: scale-free features of one server, see `fleet_scan.FleetState.features`."""
LATENTS = 5
"""K: coefficients of one server's price, the x_0 of the chain."""
SCALE = 4.0
"""A coefficient is softplus(SCALE x + bias)."""
BIAS = (0.54, -2.0, -3.0, -3.0, -1.0)
"""Biases of the K coefficients: at x = 0 a price counts the tasks that the slot will still bring, and little else."""
CEILING = 200.0
"""Services, or tasks, towards which the logarithms of backlogs saturate: beyond it a policy sees how they compare, and
what it learned in some hundred slots holds for longer ones."""
TASKS_PER_SERVER = 160.0
"""Memory of the moving averages, in tasks a server: after so many a step counts for 1 / e."""
