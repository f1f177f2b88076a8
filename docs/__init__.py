"""Scripts that draw and tabulate for the documentation; not part of the package."""
