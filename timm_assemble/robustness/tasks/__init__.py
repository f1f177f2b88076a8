"""The units of work and their cache."""
