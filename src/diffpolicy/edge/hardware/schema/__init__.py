"""The server profile's file and records."""
