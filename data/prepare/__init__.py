"""From raw files to the prepared folder: `python -m data.prepare`."""
