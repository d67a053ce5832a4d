"""Real servers: what a model's calls take on one, measured and written as a profile."""
