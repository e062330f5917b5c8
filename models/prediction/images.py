"""Segments folders of images with a predictor: finds images, writes label maps, areas and overlays."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from dataloaders.io.pictures import SUFFIXES
from dataloaders.io.png import write_pngs
from models.prediction.batch import (
    RESULT,
    TRUST,
    Inventory,
    Record,
    name_files,
    process_each,
    remove_files,
    trust,
    without_label_maps,
)
from models.prediction.dense import PROBABILITY, SEGMENTATION, DensePrediction, DensePredictor, probability_files
from models.prediction.partial import PartialPrediction, PartialPredictor
from util.errors import DataError
from util.inventory import ARCHIVE, LOST, is_archive, list_files
from util.items import Failures, catching
from util.results.overlays import save_image_overlays
from util.results.report.prediction import FILE_NAME as PAGE

TABLE = "areas.csv"
OVERLAY = "_overlay.png"
RESULTS = (SEGMENTATION, PROBABILITY, OVERLAY)
COLUMNS = ("image", "label", "structure", "pixels", "fraction_of_image", *TRUST)
LABEL_TABLES = r"labels(_.+)?\.(txt|ctbl)"
NO_IMAGE = "no image of a known format"
OVERLAY_SIDE_PX = 1024  # larger images are thinned out for overlays


Prediction = DensePrediction | PartialPrediction
Predictor = DensePredictor | PartialPredictor


def find_images(path: Path, inventory: Inventory | None = None) -> list[Path]:
    """The images at a path, in the order of their names: a file, or all images below a folder except results and masks.

    A link that leads nowhere counts as an image if it is named as one, so that it is reported as failed.

    Args:
        path: a file or a folder.
        inventory: counts the files, and receives all that are left out, with reasons; None: not needed.

    Raises:
        DataError: no such path, or there are none.
    """
    inventory = Inventory() if inventory is None else inventory
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Check the path.")
    if path.is_file():
        inventory.n_used += 1
        return [path]
    files, left_out = list_files(path, "")
    lost = [file for file, reason in left_out.items() if reason == LOST and file.suffix.lower() in SUFFIXES]
    found = []
    for file in sorted([*files, *lost]):
        if file.name.endswith(RESULTS) or file.name in (TABLE, PAGE) or re.fullmatch(LABEL_TABLES, file.name):
            left_out[file] = RESULT
        elif file.suffix.lower() in SUFFIXES:
            found.append(file)
            left_out.pop(file, None)
        else:
            left_out[file] = ARCHIVE if is_archive(file.name) else NO_IMAGE
    images = without_label_maps(found, path, lambda image: image.stem, left_out)
    inventory.n_used += len(images)
    inventory.left_out |= left_out
    if not images:
        raise DataError(f"{path}: no image found; looked for {', '.join(SUFFIXES)} files, in all subfolders.")
    return images


def name_images(images: Iterable[Path]) -> dict[str, Path]:
    """Name -> image; see `name_files`."""
    return name_files(images, lambda image: image.stem)


def result_names(predictor: Predictor, images: Iterable[str]) -> list[str]:
    """Names of the files that may be written for these images, without probabilities."""
    return [file for name in images for file in (*predictor.result_names(name), f"{name}{OVERLAY}")]


def areas(name: str, prediction: Prediction, limit: float | None = None) -> list[Record]:
    """A record with `COLUMNS` for each structure; `limit`: see `trust`."""
    records = []
    for structure, mask in prediction.masks.items():
        count = int(np.count_nonzero(mask))
        known = (name, prediction.values[structure], structure, count, round(count / mask.size, 6))
        own = dict(zip(COLUMNS, known, strict=False))
        records.append(own | trust(prediction.confidence[structure], limit))
    return records


def segment_images(
    predictor: Predictor,
    images: Mapping[str, Path],
    out: Path,
    pictures: Failures | None,
    probabilities: bool,
    failures: Failures,
    removed: list[str] | None = None,
    found: list[Record] | None = None,
    limit: float | None = None,
) -> int:
    """Segments image after image and writes the results; returns the number of those that succeeded.

    Args:
        predictor: of the images.
        images: name -> file.
        out: folder of the results.
        pictures: None: no overlays; else name -> reason of those that could not be drawn, which cost nothing else.
        probabilities: whether to write these, too.
        failures: name -> reason of the images that could not be segmented.
        removed: receives the names of probabilities and overlays of an earlier run that this one does not replace: they
            are removed, as they belong to other masks. None: they stay.
        found: receives the records of this run; None: not needed.
        limit: confidence below which a structure is to be looked at; None: not known.
    """
    work = partial(_segment, predictor, out, pictures, probabilities, _shared_names(predictor, images), removed, limit)
    n_done = process_each(images, work, out / TABLE, COLUMNS, "images", failures, found)
    with catching(failures, "tables of label values", out):
        predictor.write_label_tables(out)
    return n_done


def _segment(
    predictor: Predictor,
    out: Path,
    pictures: Failures | None,
    probabilities: bool,
    shared: frozenset[str],
    removed: list[str] | None,
    limit: float | None,
    name: str,
    path: Path,
) -> list[Record]:
    image = predictor.read(path)
    prediction = predictor.predict(image)
    files = prediction.label_files(out, name)
    more = probability_files(out, name, prediction.probabilities) if probabilities else {}
    write_pngs(files | more)
    kept = shared | {file.name for file in (*files, *more)}
    remove_files(out, [file for file in predictor.result_names(name) if file not in kept])
    if pictures is not None:
        with catching(pictures, name, path):
            _draw(out / f"{name}{OVERLAY}", name, image, prediction)
            kept |= {f"{name}{OVERLAY}"}
    if removed is not None:
        former = [f"{name}{OVERLAY}", *_probability_names(name, predictor.values)]
        removed += remove_files(out, [file for file in former if file not in kept])
    return areas(name, prediction, limit)


def _shared_names(predictor: Predictor, images: Iterable[str]) -> frozenset[str]:
    """File names that results of two images may have."""
    every = (
        file for name in images for file in {*predictor.result_names(name), *_probability_names(name, predictor.values)}
    )
    return frozenset(file for file, count in Counter(every).items() if count > 1)


def _probability_names(name: str, structures: Iterable[str]) -> list[str]:
    return [f"{name}_{each}{PROBABILITY}" for each in structures]


def _draw(path: Path, name: str, image: np.ndarray, prediction: Prediction) -> None:
    step = -(-max(image.shape[:2]) // OVERLAY_SIDE_PX)
    shown = np.atleast_3d(image)[::step, ::step].transpose(2, 0, 1).astype(np.float32)
    masks = np.stack(list(prediction.masks.values()))[:, ::step, ::step]
    save_image_overlays(path, [(name, shown, None, masks)], list(prediction.masks), "Prediction", 6.0)
