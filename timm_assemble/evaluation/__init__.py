"""The engine of evaluations: options, models under test, tasks and their cache, results, tables and figures."""
