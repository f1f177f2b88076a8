"""Metrics of a run as a summary, tables, plots and checked JSON."""
