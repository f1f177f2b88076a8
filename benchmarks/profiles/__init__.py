"""Profiles: where the time goes, by part."""
