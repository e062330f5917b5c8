"""Fair timing of a computation against its yardstick: in turn, after a warm-up, ratios pair by pair."""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from util.device import choose_device


@dataclass(frozen=True)
class Comparison:
    """Median seconds of a computation and of its yardstick, and the median of their paired ratios."""

    name: str
    yardstick: str
    seconds: float
    yardstick_seconds: float
    ratio: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        times = (f"{1000 * seconds:.1f} ms" for seconds in (self.seconds, self.yardstick_seconds))
        ratio = f"{self.ratio:.3f} ({self.lowest:.3f} to {self.highest:.3f})"
        return f"| {self.name} | {next(times)} | {self.yardstick} | {next(times)} | {ratio} |"


HEADER = "| what | time | yardstick | time | ratio (range) |\n|---|---:|---|---:|---:|"


def compare(
    name: str,
    computation: Callable[[], object],
    yardstick_name: str,
    yardstick: Callable[[], object],
    device: torch.device,
    repeats: int,
) -> Comparison:
    """Runs both in turn `repeats` times after one warm-up each."""
    for function in (computation, yardstick):
        _seconds(function, device)
    pairs = [(_seconds(computation, device), _seconds(yardstick, device)) for _ in range(repeats)]
    ratios = [one / other for one, other in pairs]
    first, second = (statistics.median(times) for times in zip(*pairs, strict=True))
    return Comparison(name, yardstick_name, first, second, statistics.median(ratios), min(ratios), max(ratios))


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def parse(description: str | None, **defaults: str | int) -> argparse.Namespace:
    """Command-line options with these defaults, and `--device`; `device` comes back resolved."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--device", default="auto")
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = parser.parse_args()
    options.device = choose_device(options.device)
    return options


def describe(device: torch.device) -> str:
    """The machine in one line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return f"{name}, torch {torch.__version__}, float32"
