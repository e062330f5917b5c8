"""Few-shot segmentation of scans: folds, evaluation protocol, slices, episodes."""
