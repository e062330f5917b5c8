"""From raw files to the prepared folder: `frugalseg prepare`."""
