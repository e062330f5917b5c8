"""Random numbers that belong to a sample, not to a process: equal for any number of workers, ranks and restarts."""

import hashlib
import random

import numpy as np
import torch
from torch import Tensor

# One number per independent use of randomness, so that two uses never share a stream.
STREAMS = {"order": 0, "episode": 1, "support_view": 2, "query_view": 3, "augmentation": 4}


def generator_for(seed: int, stream: str, index: int) -> np.random.Generator:
    """The generator of one sample: a function of (seed, stream, index) alone.

    Args:
        seed: of the whole run.
        stream: one of `STREAMS`, or one followed by the part of the batch that it serves, such as
            "augmentation/unlabelled_1": streams of different names are independent of each other.
        index: number of the sample.

    Raises:
        ValueError: an unknown stream.
    """
    use, _, part = stream.partition("/")
    if use not in STREAMS:
        raise ValueError(f"stream {stream!r}: expected one of {', '.join(STREAMS)}, or one of them with /part")
    entropy = [seed, STREAMS[use], index]
    if part:
        entropy.append(int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "big"))
    return np.random.default_rng(entropy)


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch, for weight initialisation and for libraries that draw from global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - third-party code may use it
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's global generators: the CPU's and, where the device is a GPU, its own."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restores what `random_state` returned; a run resumed on another kind of device keeps that one's fresh state."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
