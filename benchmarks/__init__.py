"""Benchmarks: one question per file, answered by ratios of cases timed side by side. Not installed."""
