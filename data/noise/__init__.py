"""Simulated annotation noise: `python -m data.noise`."""
