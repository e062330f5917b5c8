"""Leaf helpers: errors, files, configuration, seeding, checkpoints, scores, pictures. Imports nothing of ours."""
