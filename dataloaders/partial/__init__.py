"""Several sets of images, each annotated for some tasks only: tasks, views, batches, pseudo-labels."""
