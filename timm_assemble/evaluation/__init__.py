"""What evaluations share: image files, models under test, caches and files of results."""
