"""Named configurations: published settings with source, hardware and expected score."""
