"""Complete examples that run as commands."""
