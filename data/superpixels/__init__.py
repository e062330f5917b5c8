"""Superpixels of scans and of images: `frugalseg superpixels`."""
