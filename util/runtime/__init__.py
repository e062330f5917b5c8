"""The process and its machine: device, distribution, compilation, checkpoints, seeds, run stores."""
