"""Prepared scans on disk: folder, manifest, preprocessing, intensity normalisation."""
