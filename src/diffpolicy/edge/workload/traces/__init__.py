"""Readers of recorded arrivals."""
