"""How a network runs, as opposed to what it computes: memory order, batch per process, and where the data are kept."""

from typing import Literal, TypeVar

import torch
from torch import nn

from util.errors import ConfigError, UserError
from util.runtime.device import prefers_channels_last

Network = TypeVar("Network", bound=nn.Module)

MAX_DATA_SHARE = 0.3  # of a device's free memory that the training data may take


def should_keep_on_device(device: torch.device, nbytes: int, choice: Literal["auto", "device", "host"]) -> bool:
    """Whether to keep the training data on the device.

    Args:
        device: where the networks are.
        nbytes: size of the data.
        choice: "auto": on a GPU, if they take at most `MAX_DATA_SHARE` of its free memory.
    """
    if choice != "auto":
        return choice == "device"
    return device.type == "cuda" and nbytes < MAX_DATA_SHARE * torch.cuda.mem_get_info(device)[0]


def to_memory_format(network: Network, device: torch.device, choice: Literal["auto", "on", "off"]) -> Network:
    """The network with its weights in channels-last order if requested ("auto": where that is faster)."""
    is_on = choice == "on" or (choice == "auto" and prefers_channels_last(device))
    return network.to(memory_format=torch.channels_last) if is_on else network  # type: ignore[call-overload]


def batch_size_per_process(batch_size: int, world_size: int) -> int:
    """Samples per process.

    Raises:
        ConfigError: the batch cannot be divided evenly.
    """
    if batch_size % world_size:
        larger = -(-batch_size // world_size) * world_size
        raise ConfigError(
            f"batch_size={batch_size}: not divisible by {world_size} processes. Start "
            f"{_largest_divisor(batch_size, world_size)}, or use batch_size={larger} (a different experiment)."
        )
    return batch_size // world_size


def _largest_divisor(number: int, limit: int) -> int:
    return max(divisor for divisor in range(1, limit + 1) if number % divisor == 0)


def out_of_memory_error(batch_size: int, device: torch.device) -> UserError:
    """The error to raise after the device ran out of memory at `batch_size` samples; it suggests what would fit."""
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    needed = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    fitting = max(1, int(batch_size * 0.9 * total / needed)) if needed > total * 0.9 else max(1, batch_size // 2)
    advice = f"batch_size={fitting} per process" if fitting < batch_size else "a smaller network or image size"
    return UserError(
        f"{device} ran out of memory with {batch_size} sample(s) per process ({total / 2**30:.0f} GiB in total). Try "
        f"{advice}, precision=bf16 or data_on=host; the last checkpoint is intact."
    )
