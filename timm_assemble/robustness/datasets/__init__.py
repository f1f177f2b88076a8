"""Images and perturbation sequences on disk, preprocessing, and generated corruptions."""
