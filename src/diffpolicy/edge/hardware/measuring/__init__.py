"""What is measured of a server, and how."""
