"""Prepared sets of single images: folder, labels, training data."""
