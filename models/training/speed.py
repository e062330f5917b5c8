"""How a network runs, as opposed to what it computes: memory order, passes, shares, and where the data lie."""

import logging
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from util.errors import ConfigError, UserError

logger = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)

SHARE_FOR_DATA = 0.3  # of a device's free memory that the training data may take


def fits_on(device: torch.device, nbytes: int, choice: Literal["auto", "device", "host"]) -> bool:
    """Whether the training data are kept on the device.

    Args:
        device: where the networks are.
        nbytes: what the data take.
        choice: "auto": on a GPU, where they take no more than `SHARE_FOR_DATA` of its free memory.
    """
    if choice != "auto":
        return choice == "device"
    return device.type == "cuda" and nbytes < SHARE_FOR_DATA * torch.cuda.mem_get_info(device)[0]


def ordered(network: Network, device: torch.device, choice: Literal["auto", "on", "off"]) -> Network:
    """The network with its weights in channels-last order where asked for ("auto": on a GPU)."""
    is_on = choice == "on" or (choice == "auto" and device.type == "cuda")
    return network.to(memory_format=torch.channels_last) if is_on else network  # type: ignore[call-overload]


def in_passes(function: Callable[..., Tensor], at_once: int, *inputs: Tensor) -> Iterator[Tensor]:
    """Yields the results of parts of the inputs, along their first axis.

    Args:
        function: of as many tensors as there are inputs.
        at_once: samples per part; where the device's memory is too small, half as many, and half again.
        inputs: of one length.
    """
    start = 0
    while start < len(inputs[0]):
        try:
            result = function(*(one[start : start + at_once] for one in inputs))
        except torch.OutOfMemoryError:
            if at_once == 1:
                raise
            at_once //= 2
            logger.info("the device's memory does not take so many at once; %d now.", at_once)
            continue
        start += at_once
        yield result


def share_of(batch_size: int, world_size: int) -> int:
    """Samples per process.

    Raises:
        ConfigError: they cannot be shared out evenly.
    """
    if batch_size % world_size:
        larger = -(-batch_size // world_size) * world_size
        raise ConfigError(
            f"batch_size={batch_size}: cannot be shared out evenly among {world_size} processes. Start "
            f"{_divisor_below(batch_size, world_size)}, or take batch_size={larger} (which is another training)."
        )
    return batch_size // world_size


def _divisor_below(number: int, limit: int) -> int:
    return max(divisor for divisor in range(1, limit + 1) if number % divisor == 0)


def out_of_memory(batch_size: int, device: torch.device) -> UserError:
    """What to do after the device ran out of memory at `batch_size` samples."""
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    needed = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    fitting = max(1, int(batch_size * 0.9 * total / needed)) if needed > total * 0.9 else max(1, batch_size // 2)
    advice = f"batch_size={fitting} per process" if fitting < batch_size else "a smaller network or image size"
    return UserError(
        f"{device} ran out of memory with {batch_size} sample(s) per process ({total / 2**30:.0f} GiB in all). Try "
        f"{advice}, precision=bf16 or data_on=host; the last checkpoint is whole."
    )
