"""Benchmarks, one question per file; not part of the installed package."""
