"""Label propagation on synthetic CT abdomens: Dice of thirteen structures, the smallest ones of a few pixels.

python -m benchmarks.small_structures --run "propagation" --run "propagation second_look.below_cells=0"

Synthetic patients of different build; the first is annotated, the others are segmented as by `frugalseg predict`. One
line per structure: its mean area on the slices that show it, in pixels, and Dice x 100 of each run, mean over patients.
"""

import argparse
from typing import Any

import numpy as np

from benchmarks.propagation_pairs import method_of
from data.phantom import make_patient
from dataloaders.catalog import dataset
from models.prediction.propagation import PropagationPredictor
from util.results.tables import markdown_header, markdown_row


def dice_of_structures(words: str, patients: tuple[int, ...]) -> np.ndarray:
    """Dice of each structure, mean over the patients but the first, which is annotated."""
    (image, label), *others = (make_patient("sabs", patient, build="varied") for patient in patients)
    predictor = PropagationPredictor.from_scan(image, "cpu")
    predictor.segmenter.method = method_of(f"{words} annotation=labelled")
    predictor.set_support(image, label)
    values, scores = np.unique(label.array)[1:], []
    for other, truth in others:
        found = predictor.predict(other).array
        masks = [(found == value, truth.array == value) for value in values]
        scores.append([2 * (one & known).sum() / (one.sum() + known.sum()) for one, known in masks])
    return np.mean(scores, 0)


def mean_areas(patient: int) -> dict[int, float]:
    """Of each label value, on the slices that show it, in pixels."""
    label = make_patient("sabs", patient, build="varied")[1].array
    areas = {int(value): (label == value).sum((1, 2)) for value in np.unique(label)[1:]}
    return {value: area[area > 0].mean() for value, area in areas.items()}


def main() -> None:
    """Prints the table."""
    given = _parser().parse_args()
    names = dataset("SABS").class_names
    scores = np.array([dice_of_structures(words, tuple(given.patients)) for words in given.run])
    print(markdown_header(["structure", "pixels", *given.run], 1))
    for (value, area), row in zip(mean_areas(given.patients[0]).items(), scores.T, strict=True):
        print(markdown_row([names[value].lower(), f"{area:.0f}", *(f"{100 * dice:.1f}" for dice in row)]))
    print(markdown_row(["mean", "", *(f"{100 * dice:.1f}" for dice in scores.mean(1))]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Any = parser.add_argument
    add("--run", action="append", required=True, metavar="'WORDS'", help="propagation and settings")
    add("--patients", type=int, nargs="+", default=[0, 1, 3], help="of the phantom; the first is annotated (0 1 3)")
    return parser


if __name__ == "__main__":
    main()
