"""Training objectives, one file each: a method owns its networks and knows how to learn, predict and count."""
