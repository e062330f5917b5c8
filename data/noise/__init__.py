"""Simulated annotation noise: `frugalseg noise`."""
