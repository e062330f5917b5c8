"""How well the similarity to an annotated scan tells scans of the same body part from others.

    python -m benchmarks.similarity --data DATA --scan 1 2 3 5 8 10 13 15

Pairs of the named scans, each as the annotated one, and then each half of it along z, against strangers: each scan
turned by 90 degrees, and phantoms of hearts and spinal cords. `frugalseg predict` warns of a scan whose similarity,
relative to that of the annotated scan with itself, is below the limit.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from data.phantom import make_cine, make_patient
from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import open_fewshot
from dataloaders.samples import Volume
from models.methods.propagation import Propagation
from models.networks.similarity import UNLIKE
from models.prediction.propagation import PropagationPredictor
from util.errors import ConfigError
from util.results.tables import markdown_header, markdown_row

N_PHANTOMS = 3  # of hearts, and of spinal cords


def main() -> None:
    """Prints the range of each kind of pairs."""
    given = _parser().parse_args()
    if len(given.scan) < 2:
        raise ConfigError(f"--scan: {len(given.scan)} given; expected at least two.")
    folder = open_fewshot(FewShotConfig(dataset=given.dataset, label_sets="all", support_idx=(-1,)), given.data).folder
    scans = {name: folder.image(name) for name in given.scan}
    strangers = dict(phantoms())
    whole, halves = ("scans of the data set", "turned by 90 degrees", "other body parts"), "scans by a half of one"
    found: dict[str, list[float]] = {kind: [] for kind in (*whole, halves)}
    for name, image in scans.items():
        predictor = PropagationPredictor.from_scan(image, given.device)
        leave_out_what_is_not_compared(predictor)
        label = folder.label(name)
        predictor.set_support(image, label)
        others = {other: scan for other, scan in scans.items() if other != name}
        queries = (others, {f"{name} turned": turned(image)}, strangers)
        for kind, group in zip(whole, queries, strict=True):
            found[kind] += similarities(predictor, group)
        for part in (slice(len(label.array) // 2), slice(len(label.array) // 2, None)):
            if label.array[part].any():
                predictor.set_support(stretch(image, part), stretch(label, part))
                found[halves] += similarities(predictor, others)
    print(markdown_header(["pairs", "number", "lowest", "median", "highest", f"below {UNLIKE:g}"], 1))
    for what, values in found.items():
        cells = [f"{value:.3f}" for value in (min(values), np.median(values), max(values))]
        print(markdown_row([what, str(len(values)), *cells, str(sum(value < UNLIKE for value in values))]))


def leave_out_what_is_not_compared(predictor: PropagationPredictor) -> None:
    """Leaves out further sizes, copies and calibration: similarity does not depend on them, and they take long."""
    method = cast(Propagation, predictor.segmenter.method)
    method.config = replace(
        method.config,
        enlargements=method.config.enlargements[:1],
        brightness=replace(method.config.brightness, levels=()),
        calibration=replace(method.config.calibration, copies=0),
    )


def similarities(predictor: PropagationPredictor, scans: Mapping[str, Volume]) -> list[float]:
    """Of each scan with the annotated one, relative to that one's with itself."""
    found = [predictor.likeness(image, name) for name, image in scans.items()]
    return [each.relative for each in found if each is not None]


def turned(image: Volume) -> Volume:
    """A scan whose slices were turned by 90 degrees, and the sides of its pixels with them."""
    _, y, x = image.spacing_mm
    affine = image.affine @ np.diag([y / x, x / y, 1.0, 1.0])
    return Volume(np.rot90(image.array, axes=(1, 2)).copy(), affine)


def stretch(scan: Volume, slices: slice) -> Volume:
    """Some of a scan's slices, where they lie."""
    affine = scan.affine.copy()
    affine[:3, 3] += (slices.start or 0) * affine[:3, 2]
    return Volume(scan.array[slices], affine)


def phantoms() -> list[tuple[str, Volume]]:
    """Hearts and spinal cords."""
    hearts = [(f"heart {index}", make_cine("mms", index).frames[0]) for index in range(N_PHANTOMS)]
    return hearts + [(f"cord {index}", make_patient("scgm", index)[0]) for index in range(N_PHANTOMS)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Any = parser.add_argument
    add("--data", required=True, help="data root, or prepared folder")
    add("--dataset", default="CHAOST2", help="its name or description (default: CHAOST2)")
    add("--scan", nargs="+", required=True, metavar="SCAN", help="at least two, annotated")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    return parser


if __name__ == "__main__":
    main()
