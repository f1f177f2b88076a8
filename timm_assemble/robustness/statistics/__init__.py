"""Statistics of per-image records: detection of other images, intervals, comparisons, calibration."""
