"""Looks through a folder of a user's own scans or images and writes a draft of its description."""
