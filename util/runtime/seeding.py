"""Random numbers that belong to a sample, not to a process: equal for any number of workers, ranks and restarts."""

import random

import numpy as np
import torch

# One number per independent use of randomness, so that two uses never share a stream.
STREAMS = {"order": 0, "episode": 1, "support_view": 2, "query_view": 3, "augmentation": 4}


def generator_for(seed: int, stream: str, index: int) -> np.random.Generator:
    """The generator of one sample: a function of (seed, stream, index) alone."""
    return np.random.default_rng([seed, STREAMS[stream], index])


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch, for weight initialisation and for libraries that draw from global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - third-party code may use it
    torch.manual_seed(seed)
