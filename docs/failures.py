"""Draws docs/images/failures.png: synthetic scans in which comparison with one annotated scan goes wrong.

    python -m docs.failures --out docs/images/failures.png

The annotated scan of the README's picture, and another patient: as it is, with a spleen as dark as muscle, with the
upper third of the scan alone, and with inverted contrast. Above each the structure with the lowest confidence. A few
minutes on two CPU cores.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.phantom import make_patient
from data.phantom.writers.chaos import LABELS
from dataloaders.samples import Volume
from docs.overview import HEIGHT, NAMES, draw_slice, run, telling_slice
from models.predict import PropagationPredictor
from util.results.pictures import draw_legend, panel_grid, save_figure

ANNOTATED, OTHER = 0, 1  # patients
SPLEEN = LABELS["spleen"]

Change = Callable[[Volume, Volume], tuple[Volume, Volume]]


def as_it_is(image: Volume, label: Volume) -> tuple[Volume, Volume]:
    """No change."""
    return image, label


def with_dark_spleen(image: Volume, label: Volume) -> tuple[Volume, Volume]:
    """The spleen is as bright as the median of what is in the body and in no structure."""
    array, spleen = image.array.astype(np.float32), label.array == SPLEEN
    outside = array[(label.array == 0) & (array > np.percentile(array, 99) / 20)]
    array[spleen] *= np.median(outside) / np.median(array[spleen])
    return replace(image, array=array.astype(image.array.dtype)), label


def upper_third(image: Volume, label: Volume) -> tuple[Volume, Volume]:
    """The third of the slices that is towards the head."""
    count = len(image.array) // 3
    kept = slice(len(image.array) - count, None) if image.affine[2, 2] > 0 else slice(None, count)
    affine = image.affine.copy()
    affine[:3, 3] += (kept.start or 0) * affine[:3, 2]
    part, its_label = (replace(each, array=each.array[kept], affine=affine) for each in (image, label))
    return part, its_label


def inverted(image: Volume, label: Volume) -> tuple[Volume, Volume]:
    """What is bright in the body is dark, and the other way round."""
    array = image.array.astype(np.float32)
    level = np.percentile(array, 99.5)
    array = np.where(array > level / 15, level * 1.05 - array.clip(max=level), array)
    return replace(image, array=array.astype(image.array.dtype)), label


CHANGES: dict[str, Change] = {
    "like the annotated one": as_it_is,
    "spleen as dark as muscle": with_dark_spleen,
    "its upper third alone": upper_third,
    "inverted contrast": inverted,
}


def draw(path: Path, seed: int, size_px: int) -> None:
    """Segments the scans and writes the picture.

    Args:
        path: the picture, PNG.
        seed: of the patients.
        size_px: rows and columns of the scans.
    """
    annotated, other = (make_patient("chaost2", index, seed, size_px, "varied") for index in (ANNOTATED, OTHER))
    predictor = PropagationPredictor.from_scan(annotated[0], "cpu")
    predictor.set_support(*annotated, LABELS)
    figure, grid = panel_grid("", 1, len(CHANGES), (2.6, 2.6 * HEIGHT + 0.25), dpi=100)
    for axes, (title, change) in zip(grid[0], CHANGES.items(), strict=True):
        image, truth = change(*other)
        found = predictor.segment(image, title)
        name, confidence = min(found.confidence.items(), key=lambda pair: pair[1] or 0)
        shown, wanted = found.label_map.array == LABELS[name], truth.array == LABELS[name]
        dice = 2 * (shown & wanted).sum() / max(shown.sum() + wanted.sum(), 1)
        text = f"{title}\n{name}: {confidence or 0:.2f}, Dice {dice:.2f}"
        draw_slice(axes, image, found.label_map.array, telling_slice(truth.array), text, truth.array)
    draw_legend(figure, list(NAMES.values()), "truth")
    save_figure(figure, path)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    run(draw, "Draws synthetic scans in which propagation goes wrong.", arguments)


if __name__ == "__main__":
    main()
