"""Anatomy: analytic shapes, and the bodies composed of them."""
