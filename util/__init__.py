"""Leaf helpers: errors, files, configuration schema, seeding, checkpoints, metrics, pictures. Imports nothing of ours."""
