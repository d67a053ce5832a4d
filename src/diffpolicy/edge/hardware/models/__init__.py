"""Architectures that are built without weights, and checkpoints of those that have them."""
