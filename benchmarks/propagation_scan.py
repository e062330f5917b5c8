"""Segmenting a scan by label propagation against the bare encoder's passes over its slices, and memory by length.

python -m benchmarks.propagation_scan --encoder efficientnet_lite0 --size 256 --slices 36 --repeats 9
"""

import weakref
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.timing import HEADER, Comparison, compare, describe, parse
from dataloaders.samples import EvalCase, SupportScan, SupportSet
from models.methods.propagation import Propagation, PropagationConfig
from models.prediction.segmenter import Segmenter
from util.results.tables import markdown_header, markdown_row

CLASSES = (1, 2, 3, 4)
SPACING_MM = (7.7, 1.5, 1.5)
TIMES_AS_LONG = (1, 2, 4)  # scans whose memory is measured
MEMORY_HEADER = markdown_header(["memory of a scan", "output", "peak above it", "relative to the shortest scan"], 1)


class LiveTensors(TorchDispatchMode):
    """The most bytes of tensors that were alive at once, of those made within this context."""

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Runs an operation and counts the storages it made."""
        self._note((args, kwargs), is_new=False)
        result = func(*args, **(kwargs or {}))
        self._note(result, is_new=True)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return result

    def _note(self, found: Any, is_new: bool) -> None:
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._known:
                storage = tensor.untyped_storage()
                n_bytes = storage.nbytes() if is_new else 0
                self._known.add(storage._cdata)
                self.live_bytes += n_bytes
                weakref.finalize(storage, self._forget, storage._cdata, n_bytes)

    def _forget(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self.live_bytes -= n_bytes


def scan(n_slices: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """A normalised image (D, 1, H, W) of noise with four bright organs in a body, and the labels (D, H, W)."""
    z, row, column = torch.meshgrid(
        *(torch.linspace(-1, 1, length) for length in (n_slices, size, size)), indexing="ij"
    )
    label = torch.zeros(n_slices, size, size, dtype=torch.uint8)
    for value, (y, x) in enumerate(((-0.2, -0.4), (0.2, -0.3), (0.2, 0.3), (-0.2, 0.4)), 1):
        label[((row - y) ** 2 + (column - x) ** 2) / 0.04 + z**2 / 0.4 < 1] = value
    noise = torch.randn(label.shape, generator=torch.Generator().manual_seed(seed))
    image = 1.0 * (row**2 / 0.5 + column**2 / 0.8 < 1) + label / 2 + 0.1 * noise
    return ((image - image.mean()) / image.std())[:, None], label


def prepare(options: Namespace) -> tuple[Propagation, Segmenter]:
    """The method, and what segments with it, the annotated scan being encoded, as for all scans of a fold."""
    torch.manual_seed(0)
    method = Propagation(PropagationConfig(modelname=options.encoder, encoder_weights="none")).to(options.device)
    image, label = scan(options.slices, options.size, seed=1)
    known = SupportScan(image, label, SPACING_MM, torch.arange(3).expand(len(CLASSES), -1))
    empty = torch.zeros(len(CLASSES), 3, 1, 1, options.size, options.size)
    segmenter = Segmenter(method, options.device)
    segmenter.set_support(SupportSet(CLASSES, empty, empty[:, :, :, 0] > 0, (known,)))
    return method, segmenter


def case_of(options: Namespace, n_slices: int) -> EvalCase:
    """A scan to segment."""
    part = torch.zeros(len(CLASSES), n_slices, dtype=torch.int64)
    case = EvalCase("1", CLASSES, scan(n_slices, options.size, seed=2)[0], part, spacing_mm=SPACING_MM)
    return case.to(options.device)


def measure(options: Namespace) -> list[Comparison]:
    """One scan, with the support encoded beforehand."""
    (method, segmenter), case = prepare(options), case_of(options, options.slices)

    def run(function: Callable[[], object]) -> None:
        with torch.inference_mode(), options.autocast:
            function()

    enlarged = [
        F.interpolate(case.image, scale_factor=factor, mode="bilinear").split(
            max(1, int(method.config.slices_per_pass / factor**2))
        )
        for factor in method.config.enlargements
    ]

    def bare() -> None:
        encoder = method.fast_encoder(case.image)
        for images in chain.from_iterable(enlarged):
            encoder(images)

    name = f"propagation to {options.slices} slices, {len(CLASSES)} organs, {options.encoder}, {options.size} px"
    segment = partial(run, lambda: segmenter.segment(case))
    return [
        compare(
            name, segment, "encoder forward of its slices, at all sizes", partial(run, bare), options, is_network=True
        )
    ]


def measure_memory(options: Namespace) -> list[str]:
    """Tensors that live at once beyond probabilities and masks, for scans of several lengths and one annotated scan."""
    (method, segmenter), lines, above = prepare(options), [], []
    for n_slices in (times * options.slices for times in TIMES_AS_LONG):
        case = case_of(options, n_slices)
        with torch.inference_mode(), LiveTensors() as tensors:
            probabilities = method.probabilities(case, segmenter.support)
            masks = method.masks(probabilities)
        output = probabilities.nbytes + masks.nbytes
        above.append(tensors.peak_bytes - output)
        cells = [f"{output / 2**20:.0f} MiB", f"{above[-1] / 2**20:.0f} MiB", f"{above[-1] / above[0]:.2f}"]
        lines.append(markdown_row([f"{n_slices} slices", *cells]))
    return lines


if __name__ == "__main__":
    given = parse(__doc__, encoder="efficientnet_lite0", size=256, slices=36, repeats=9)
    print(describe(given), HEADER, *measure(given), "", MEMORY_HEADER, *measure_memory(given), sep="\n")
