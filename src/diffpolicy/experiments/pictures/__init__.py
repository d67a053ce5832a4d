"""Pictures of what experiments write, each drawn from its CSV alone."""
