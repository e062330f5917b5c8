"""Writes the network as ONNX and compares it with PyTorch; the packages are in requirements-onnx.txt."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from util.errors import ConfigError, UserError

logger = logging.getLogger(__name__)

OPSET = 18
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4  # largest difference to PyTorch, as a fraction of the largest output, or of 1 if that is smaller
FREE = {"batch, height and width": (0, 2, 3), "batch": (0,), "none": ()}  # tried in this order, until one is exact


@dataclass(frozen=True)
class OnnxFile:
    """What is known of a written file.

    Attributes:
        free: axes of any length: a key of `FREE`.
        difference: largest one to PyTorch on random inputs.
        tolerance: that it was compared with.
        shape: (B, C, H, W) of the input on which the network was traced.
    """

    free: str
    difference: float
    tolerance: float
    shape: tuple[int, ...]


def require_packages() -> None:
    """Checks that the optional packages are installed.

    Raises:
        ConfigError: one is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--onnx: needs {', '.join(missing)}, not installed. Run `pip install -r requirements-onnx.txt`, or leave "
            "--onnx out."
        )


def write_onnx(network: nn.Module, shape: tuple[int, int, int], path: Path) -> OnnxFile:
    """Writes a network with as many free axes as it allows.

    Args:
        network: from images (B, C, H, W) to one tensor, on the CPU; put into evaluation mode.
        shape: channels, rows and columns of its input.
        path: the file.

    Raises:
        UserError: the network cannot be exported, or differs from PyTorch by more than the tolerance.
    """
    network = network.eval()
    reasons = []
    for free, axes in FREE.items():
        # Axes of 1 are taken for fixed ones, so that two images are traced where their number is free.
        example = random_images((2 if axes else 1, *shape))
        try:
            _trace(network, example, axes, path)
            return OnnxFile(free, *_compare(network, example, axes, path), tuple(example.shape))
        except Exception as error:  # noqa: BLE001 - what the exporter and the runtime raise is of many kinds
            reasons.append(f"{free}: {_first_line(error)}")
            logger.info("ONNX with free axes %s: not possible (%s)", free, _first_line(error))
    raise UserError(
        f"the network cannot be written as ONNX. Free axes {'; '.join(reasons)}. Nothing was written. Leave "
        "--onnx out, or try other versions of onnx and torch."
    )


def random_images(shape: tuple[int, ...]) -> Float[Tensor, "B C H W"]:
    """Standard normal images, the same at each call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _trace(network: nn.Module, example: Tensor, axes: tuple[int, ...], path: Path) -> None:
    names = ("batch", "channels", "height", "width")
    dynamic = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            network, (example,), input_names=["image"], output_names=["output"], opset_version=OPSET, dynamo=True,
            dynamic_shapes=(dynamic,) if axes else None, external_data=False, verbose=False,
        )  # fmt: skip
        for axis in axes:
            program.rename_axes({str(program.model.graph.inputs[0].shape[axis]): names[axis]})
        program.save(path)


def _compare(network: nn.Module, example: Tensor, axes: tuple[int, ...], path: Path) -> tuple[float, float]:
    """Largest difference to PyTorch on the traced size, and on another one along the free axes; the tolerance.

    Raises:
        ValueError: it is above the tolerance.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised, too
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    images = [example, *(random_images(shape) for shape in _other_shapes(tuple(example.shape), axes))]
    worst, tolerance = 0.0, TOLERANCE
    for image in images:
        (found,) = session.run(None, {"image": image.numpy()})
        with torch.inference_mode():
            expected = network(image)
        difference = float((torch.from_numpy(found) - expected).abs().max())
        allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
        if not difference <= allowed:
            raise ValueError(
                f"differs from PyTorch by {difference:.3g} on a random input of {tuple(image.shape)}, more than "
                f"{allowed:.3g}"
            )
        worst, tolerance = max(worst, difference), max(tolerance, allowed)
    return worst, tolerance


def _other_shapes(shape: tuple[int, ...], axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes that differ from the traced one along every free axis; sides are doubled, so that multiples stay such."""
    if not axes:
        return []
    channels, rows, columns = shape[1:]
    factor = 2 if len(axes) > 1 else 1
    return [(1, channels, factor * rows, columns), (3, channels, rows, factor * columns)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and messages of the exporter, which name its own functions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
