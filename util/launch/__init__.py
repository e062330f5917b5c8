"""Slurm jobs: `frugalseg launch` prints or submits job scripts; `util.launch.item` runs one task of a job."""
