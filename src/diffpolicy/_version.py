"""The version, in one place that imports nothing."""

__version__ = "1.0.0"
