"""Segments folders of images with a dense predictor: finds images, writes label maps, areas and overlays."""

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from dataloaders.io.pictures import SUFFIXES
from models.prediction.batch import Record, name_files, process_each, without_label_maps
from models.prediction.dense import (
    PROBABILITY,
    SEGMENTATION,
    DensePrediction,
    DensePredictor,
    write_probabilities,
    write_segmentation,
)
from util.errors import DataError
from util.results.overlays import save_image_overlays

TABLE = "areas.csv"
OVERLAY = "_overlay.png"
RESULTS = (SEGMENTATION, PROBABILITY, OVERLAY)
COLUMNS = ("image", "label", "structure", "pixels", "fraction_of_image")
OVERLAY_SIDE_PX = 1024  # larger images are thinned out for overlays


def find_images(path: Path) -> list[Path]:
    """The images at a path, in the order of their names: a file, or all images below a folder except results and masks.

    Raises:
        DataError: there are none.
    """
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    shown = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    images = [file for file in shown if not file.name.endswith(RESULTS)]
    images = without_label_maps(images, path, lambda image: image.stem)
    if not images:
        raise DataError(f"{path}: no image found; expected a file, or a folder with {', '.join(SUFFIXES)} files.")
    return images


def name_images(images: Iterable[Path]) -> dict[str, Path]:
    """Name -> image; see `name_files`."""
    return name_files(images, lambda image: image.stem)


def result_names(images: Iterable[str]) -> list[str]:
    """Names of the files that are written for these images, whatever the options."""
    return [TABLE, *(f"{name}{end}" for name in images for end in (SEGMENTATION, OVERLAY))]


def areas(name: str, prediction: DensePrediction) -> list[Record]:
    """A record with `COLUMNS` for each structure."""
    counts = {structure: int(np.count_nonzero(mask)) for structure, mask in prediction.masks.items()}
    return [
        dict(
            zip(
                COLUMNS,
                (name, prediction.values[each], each, count, round(count / prediction.masks[each].size, 6)),
                strict=True,
            )
        )
        for each, count in counts.items()
    ]


def segment_images(
    predictor: DensePredictor, images: Mapping[str, Path], out: Path, overlays: bool, probabilities: bool
) -> dict[str, str]:
    """Segments image after image and writes the results; returns name -> message of those that failed."""
    work = partial(_segment, predictor, out, overlays, probabilities, frozenset(images))
    return process_each(images, work, out / TABLE, COLUMNS, "images")


def _segment(
    predictor: DensePredictor,
    out: Path,
    overlays: bool,
    probabilities: bool,
    names: frozenset[str],
    name: str,
    path: Path,
) -> list[Record]:
    image = predictor.read(path)
    prediction = predictor.predict(image)
    written = write_segmentation(out, name, prediction.masks, prediction.values)
    _remove_former(out, name, prediction.masks, {*written, *(f"{other}{SEGMENTATION}" for other in names - {name})})
    if probabilities:
        write_probabilities(out, name, prediction)
    if overlays:
        _draw(out / f"{name}{OVERLAY}", name, image, prediction)
    return areas(name, prediction)


def _remove_former(out: Path, name: str, structures: Iterable[str], kept: Collection[str]) -> None:
    """Removes masks of an earlier run that this one wrote none of: structures overlap in one of the two only."""
    for file in (f"{name}{SEGMENTATION}", *(f"{name}_{each}{SEGMENTATION}" for each in structures)):
        if file not in kept:
            (out / file).unlink(missing_ok=True)


def _draw(path: Path, name: str, image: np.ndarray, prediction: DensePrediction) -> None:
    step = -(-max(image.shape[:2]) // OVERLAY_SIDE_PX)
    shown = np.atleast_3d(image)[::step, ::step].transpose(2, 0, 1).astype(np.float32)
    masks = np.stack(list(prediction.masks.values()))[:, ::step, ::step]
    save_image_overlays(path, [(name, shown, None, masks)], list(prediction.masks), "Prediction", 6.0)
