"""Many samples through a network, as many at once as the device's memory allows."""

import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def run_in_chunks(function: Callable[..., Tensor], chunk_size: int, *inputs: Tensor) -> Iterator[Tensor]:
    """Yields the results of consecutive chunks of the inputs along their first axis.

    Args:
        function: of as many tensors as there are inputs.
        chunk_size: samples per chunk; halved whenever the device runs out of memory.
        inputs: of equal length.
    """
    start = 0
    while start < len(inputs[0]):
        try:
            result = function(*(one[start : start + chunk_size] for one in inputs))
        except torch.OutOfMemoryError:
            if chunk_size == 1:
                raise
            chunk_size //= 2
            logger.info("out of device memory; reducing the chunk size to %d", chunk_size)
            continue
        start += chunk_size
        yield result
