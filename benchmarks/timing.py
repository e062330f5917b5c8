"""Timing of a computation relative to a yardstick: many alternating pairs after a warm-up.

The speed of a shared machine varies, so each time is compared only with that of its own pair: the ratio is the median
of the pairs' ratios, given with its 95 % confidence interval.
"""

import argparse
import ctypes
import gc
import math
import resource
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import cast

import torch
import torch.nn.functional as F
from scipy.stats import binom
from torch.utils.flop_counter import FlopCounterMode

from util.results.tables import markdown_header, markdown_row
from util.runtime.device import (
    Precision,
    architecture,
    available_precision,
    choose_device,
    keep_freed_memory,
    set_precision,
)

LABELS = ("what", "yardstick")
FIGURES = ("time", "floor", "yardstick's time", "ratio (95 %)", "outside the network", "peak memory", "GPU busy")
HEADER = markdown_header([*LABELS, *FIGURES], len(LABELS))
WARM_UP = 3  # calls: a compiled function is compiled in the first and recorded as a graph in the next ones
SHORTEST_S = 0.2  # shorter computations are timed as several calls in a row, as in training

_STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Comparison:
    """Median seconds of a computation and of its yardstick, and the median of their ratios with its interval."""

    name: str
    yardstick: str
    seconds: float
    yardstick_seconds: float
    ratio: float
    lowest: float
    highest: float
    floor_seconds: float | None  # time of its operations at the rate of a large product in the same run
    outside: float | None  # share of its time spent outside the network
    peak_bytes: int | None  # beyond what is allocated before and after
    busy: float | None  # share of its time that the GPU spends in kernels

    def __str__(self) -> str:
        ratio = f"{self.ratio:.3f} ({self.lowest:.3f} to {self.highest:.3f})"
        outside = "" if self.outside is None else f"{max(0.0, self.outside):.0%}"
        peak = "" if self.peak_bytes is None else f"{self.peak_bytes / 2**20:.0f} MiB"
        busy = "" if self.busy is None else f"{self.busy:.0%}"
        times = map(_ms, (self.seconds, self.floor_seconds, self.yardstick_seconds))
        return markdown_row([self.name, self.yardstick, *times, ratio, outside, peak, busy])


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.1f} ms"


def compare(
    name: str,
    computation: Callable[[], object],
    yardstick_name: str,
    yardstick: Callable[[], object],
    options: argparse.Namespace,
    *,
    is_network: bool = False,
    repeats: int | None = None,
) -> Comparison:
    """Runs both alternately after a warm-up and a measurement of memory.

    Args:
        name: of the computation.
        computation: what is measured.
        yardstick_name: of the yardstick.
        yardstick: what it is compared with.
        options: as `parse` returns them.
        is_network: whether the yardstick is the bare network of the computation; its floor and share are then given.
        repeats: pairs; None: as in the options.
    """
    device = options.device
    calls = [_warm_up(function, device) for function in (computation, yardstick)]
    peak = peak_bytes(computation, device)
    times: tuple[list[float], list[float]] = [], []
    for number in range(repeats or int(options.repeats)):
        for which in (0, 1) if number % 2 else (1, 0):  # so that neither always comes second
            times[which].append(_seconds((computation, yardstick)[which], device, calls[which]))
    first, second = map(median, times)
    ratios = [one / other for one, other in zip(*times, strict=True)]
    ratio = median(ratios)
    floor = None
    if is_network:
        floor = _count_operations(yardstick) / product_rate(device, options.precision)
    return Comparison(
        name, yardstick_name, first, second, ratio, *interval(ratios), floor,
        1 - 1 / ratio if is_network else None, peak, _busy_share(computation, device, first),
    )  # fmt: skip


def _count_operations(function: Callable[[], object]) -> int:
    """Floating-point operations of a call, which runs uncompiled.

    The counter's hooks would have compiled networks compiled anew, and slower from then on.
    """
    with (
        warnings.catch_warnings(action="ignore", category=UserWarning),  # of hooks on what is compiled
        torch.compiler.set_stance("force_eager"),
        FlopCounterMode(display=False) as counter,
    ):
        function()
    return counter.get_total_flops()


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % confidence interval of the median; for fewer than six values their range.

    It extends from the k-th smallest to the k-th largest value, with k from the binomial distribution; it holds for any
    distribution of the values.
    """
    ordered, k = sorted(values), max(1, int(binom.ppf(0.025, len(values), 0.5)))
    return ordered[k - 1], ordered[-k]


@cache
def product_rate(device: torch.device, precision: Precision) -> float:
    """Floating-point operations per second of a large matrix product or convolution: the best of fifty of each.

    Operations of convolutions are counted by definition; an algorithm that needs fewer (Winograd) counts as faster.
    """
    side, n_images = (8192, 64) if device.type == "cuda" else (2048, 4)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    image = torch.randn(n_images, 256, 64, 64, device=device).to(dtype)
    weight = torch.randn(256, 256, 3, 3, device=device).to(dtype)
    product = min(_seconds(lambda: one @ other, device) for _ in range(50))
    convolution = min(_seconds(lambda: F.conv2d(image, weight, padding=1), device) for _ in range(50))
    return max(2 * side**3 / product, 2 * image.numel() * weight[0].numel() / convolution)


def _warm_up(function: Callable[[], object], device: torch.device) -> int:
    """Number of calls in a row that last long enough to be timed."""
    on_gpu = device.type == "cuda"
    for _ in range(WARM_UP if on_gpu else 1):
        seconds = _seconds(function, device)
    if seconds < SHORTEST_S:
        seconds = _seconds(function, device)
    return max(1, math.ceil(SHORTEST_S / seconds))


def _seconds(function: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Seconds per call, from several calls without synchronisation between them."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / calls


def _busy_share(function: Callable[[], object], device: torch.device, seconds: float) -> float | None:
    """Sum of the times of a call's kernels, as a share of the time of the call."""
    if device.type != "cuda":
        return None
    calls = math.ceil(SHORTEST_S / seconds)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        _seconds(function, device, calls)
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / calls / seconds


def peak_bytes(function: Callable[[], object], device: torch.device) -> int | None:
    """Peak memory of the device; on a CPU, of the process, sampled every millisecond (Linux only)."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    if not _STATM.exists():
        return None
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # return freed memory to the system, so that it counts when allocated again
    before, highest, is_over = _anonymous_bytes(), [0], Event()

    def watch() -> None:
        while not is_over.wait(0.001):
            highest[0] = max(highest[0], _anonymous_bytes())

    watcher = Thread(target=watch)
    watcher.start()
    function()
    is_over.set()
    watcher.join()
    return max(0, highest[0] - before)


def _anonymous_bytes() -> int:
    """Resident memory of the process that is not backed by a file."""
    _, resident, shared, *_ = map(int, _STATM.read_text().split())
    return (resident - shared) * resource.getpagesize()


def parse(description: str | None, **defaults: str | int) -> argparse.Namespace:
    """Command-line options with these defaults, and the common ones; `device` is resolved."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("float32", "tf32", "bf16"), default="float32")
    parser.add_argument("--channels-last", choices=("auto", "on", "off"), default="auto")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="off")
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = parser.parse_args()
    options.device = choose_device(options.device)
    keep_freed_memory(options.device)  # as training and validation do
    options.precision = available_precision(options.precision, options.device)
    options.autocast = set_precision(options.precision, options.device)
    return options


def describe(options: argparse.Namespace) -> str:
    """The machine and its settings, in one line."""
    device, precision = options.device, cast("Precision", options.precision)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    rate = f"{product_rate(device, precision) / 1e12:.2f} TFLOP/s in a large product"
    how = f"channels_last={options.channels_last}, compile={options.compile}"
    return f"{name} ({architecture(device)}), torch {torch.__version__}, {precision}, {rate}, {how}"
