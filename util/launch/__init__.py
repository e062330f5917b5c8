"""Jobs for Slurm: `python -m util.launch` prints or submits them, `python -m util.launch.item` is a task of one."""
