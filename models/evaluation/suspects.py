"""Ranks the given masks of training images by how much a trained network disagrees with them.

A low-quality score means that the mask deserves a second look; it is no proof that the mask is wrong.
"""
