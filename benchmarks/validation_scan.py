"""Segmenting a whole scan for four organs against the bare encoder's forward pass over its slices.

python -m benchmarks.validation_scan --modelname dlfcn_res101 --size 256 --slices 34 --repeats 9

Twice: a prepared scan, as in validation, and a raw one (a phantom), from preparation to the label map on its own grid,
as in `frugalseg predict`. The annotated slices were encoded before.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.timing import HEADER, Comparison, compare, describe, parse
from data.phantom import make_patient
from data.phantom.writers.chaos import LABELS
from dataloaders.catalog import dataset
from dataloaders.samples import EvalCase, SupportSet, Volume
from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import parameters_of
from models.methods.alpnet import ALPNet, ALPNetConfig
from models.prediction.fewshot import FewShotPredictor


def measure(options: Namespace) -> list[Comparison]:
    """A prepared scan and a raw one."""
    torch.manual_seed(0)
    method = ALPNet(ALPNetConfig(modelname=options.modelname, encoder_weights="none")).to(options.device).eval()
    return [_prepared(method, options), _raw(method, options)]


def _prepared(method: ALPNet, options: Namespace) -> Comparison:
    device, size = options.device, options.size
    mask = torch.zeros(4, 3, 1, size, size, dtype=torch.bool)
    mask[..., size // 4 : size // 2, size // 4 : size // 2] = True
    support = SupportSet((1, 2, 3, 4), torch.randn(4, 3, 1, 1, size, size), mask).to(device)
    part = torch.arange(options.slices).mul(3).div(options.slices, rounding_mode="floor").expand(4, -1)
    case = EvalCase("1", (1, 2, 3, 4), torch.randn(options.slices, 1, size, size), part).to(device)
    with torch.inference_mode():
        encoded = method.encode_support(support)
        return _compare(method, "segmenting a scan", lambda: method.predict(case, encoded), options.slices, options)


def _raw(method: ALPNet, options: Namespace) -> Comparison:
    parameters = parameters_of(dataset("CHAOST2"), options.size)
    predictor = FewShotPredictor(method, Normalisation(), parameters, 3, options.device)
    image, label = make_patient("chaost2", 0, size_px=options.size)
    predictor.set_support(image, label, LABELS)
    scan, _ = make_patient("chaost2", 1, size_px=options.size)
    scan = _of_length(scan, options.slices)
    encoded: list[int] = []  # slices of the prepared scan, which may have other distances
    counting = method.encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    predictor.segment(scan)
    counting.remove()
    with torch.inference_mode():
        return _compare(method, "predicting a raw scan", lambda: predictor.segment(scan), sum(encoded), options)


def _of_length(scan: Volume, n_slices: int) -> Volume:
    """The scan with at most so many slices, from the middle."""
    first = max(0, (len(scan.array) - n_slices) // 2)
    return replace(scan, array=scan.array[first : first + n_slices])


def _compare(
    method: ALPNet, name: str, function: Callable[[], object], n_slices: int, options: Namespace
) -> Comparison:
    images = torch.randn(n_slices, 1, options.size, options.size, device=options.device)

    def run(work: Callable[[], object]) -> None:
        with options.autocast:
            work()

    def bare() -> None:
        for part in images.split(16):
            method.encoder(part)

    return compare(
        f"{name} of {n_slices} slices for 4 organs, {options.modelname}, {options.size} px",
        lambda: run(function),
        "encoder forward of its slices",
        lambda: run(bare),
        options,
        is_network=True,
    )


if __name__ == "__main__":
    given = parse(__doc__, modelname="dlfcn_res101", size=256, slices=34, repeats=9)
    print(describe(given), HEADER, *measure(given), sep="\n")
