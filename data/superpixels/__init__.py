"""Superpixels of scans and of images: `python -m data.superpixels`."""
