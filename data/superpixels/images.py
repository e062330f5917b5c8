"""Superpixels of the training images of a set of images: see `frugalseg superpixels --help`."""

import logging
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data.prepare.steps import Output, training_ids
from data.superpixels.slic import Quality, measure_quality, segment_slic
from dataloaders.images.derived import superpixels_of
from dataloaders.images.folder import ImageFolder, SuperpixelConfig
from dataloaders.io.png import read_image, read_mask, read_stored, read_superpixels, to_8_bit, write_png
from util.errors import ConfigError, DataError
from util.items import Failures, attempt_each, raise_failures
from util.results.metrics import summarise
from util.results.pictures import (
    EXPERT_COLOUR,
    draw_outline,
    enlarge,
    mark_regions,
    panel_grid,
    save_figure,
    show_image,
)

FACTOR = 3  # of the enlargement of pictures, so that outlines are thin
PROBABILITIES_COMMAND = "frugalseg probabilities ..."  # what writes the probabilities

log = logging.getLogger(__name__)


def write_superpixels(
    folder: ImageFolder,
    config: SuperpixelConfig,
    structure: str,
    *,
    probabilities: Path | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Writes the superpixels of all training images, as 16-bit PNG, and `superpixels.json`.

    Args:
        folder: the prepared images.
        config: the superpixels; unset values are those of the data set.
        structure: determines the number of segments, and the probabilities.
        probabilities: folder of `<id>.png`, 8 or 16 bit, the largest value being 1; for the source "gray+prob".
        jobs: processes.

    Returns:
        quality (see `_summary`) and the version of scikit-image; the facts of `superpixels.json`.

    Raises:
        ConfigError: an unknown structure, or a source that does not match images or probabilities.
        DataError: no training image, or a probability is missing.
        FailedItemsError: images, masks or probabilities are missing or damaged; the message names them. The others
            are written, but not recorded, so that nothing trains on them.
    """
    resolved = config.resolved(folder.spec, structure)
    if (resolved.source == "gray+prob") != (probabilities is not None):
        needed = "needs" if probabilities is None else "does not use"
        raise ConfigError(
            f"superpixel.source={resolved.source!r} {needed} --probabilities FOLDER; with the source 'gray+prob', and "
            f"only then, give the folder that `{PROBABILITIES_COMMAND}` has written."
        )
    ids = training_ids(folder)
    maps = tuple(probabilities / f"{image_id}.png" for image_id in ids) if probabilities else ()
    _require(maps)
    output = Output(superpixels_of(folder, config, structure), maps)
    title = f"{folder.spec.name} {output.folder.name}"

    def make() -> dict[str, Any]:
        work = partial(_segment_file, folder, output=output, config=resolved, probabilities=probabilities)
        items, failures = {image_id: image_id for image_id in ids}, Failures()
        made = attempt_each(work, items, jobs, title, failures, folder.image_path)
        qualities = [quality for _, quality in made]
        raise_failures(failures, len(items), title)
        return {"quality": _summary(qualities), "scikit_image": version("scikit-image")}

    facts = output.update(ids, title, make)
    _log_quality(title, facts["quality"])
    return facts


def _require(maps: Sequence[Path]) -> None:
    missing = [path for path in maps if not path.exists()]
    if missing:
        raise DataError(
            f"{missing[0]}: no such file ({len(missing)} of {len(maps)} probabilities are missing). Write those of all "
            f"training images with `{PROBABILITIES_COMMAND}`, and give the folder that it names."
        )


def _segment_file(
    folder: ImageFolder,
    image_id: str,
    *,
    output: Output,
    config: SuperpixelConfig,
    probabilities: Path | None,
) -> Quality:
    path = output.path(image_id)
    masks = {name: read_mask(folder.mask_path(image_id, name)) for name in output.derived.settings["structures"]}
    if path.exists():  # left by an interrupted run
        return measure_quality(read_superpixels(path), masks)
    image = read_image(folder.image_path(image_id))
    probability = _read_probability(probabilities / path.name, image.shape[:2]) if probabilities else None
    ids = segment_slic(image, config, probability, config.equalised)
    if ids.max() > np.iinfo(np.uint16).max:
        raise ConfigError(
            f"superpixel.n_segments={config.n_segments}: {image_id} has {ids.max() + 1} superpixels; expected at "
            "most 65536, the limit of 16 bits. Request fewer."
        )
    write_png(path, ids.astype(np.uint16))
    return measure_quality(ids, masks)


def _read_probability(path: Path, shape: tuple[int, ...]) -> Float[np.ndarray, "H W"]:
    """Probabilities from 8 or 16 bit."""
    try:
        array = read_stored(path)
    except DataError as error:
        raise DataError(f"{error} Or write it again with `{PROBABILITIES_COMMAND}`.") from error
    if array.shape != shape or array.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path}: {array.dtype} of shape {array.shape}; expected 8 or 16 bit grey of the image's shape {shape}. "
            f"Write the probabilities for these images with `{PROBABILITIES_COMMAND}`."
        )
    return array / (255.0 if array.dtype == np.uint8 else 65_535.0)


def _summary(qualities: Sequence[Quality]) -> dict[str, Any]:
    """Means over the images; per structure those that show it, n_images of them."""
    numbers = [quality.n_segments for quality in qualities]
    found: dict[str, Any] = {
        "n_segments": {"mean": float(np.mean(numbers)), "min": min(numbers), "max": max(numbers)},
        "structures": {},
    }
    for name in qualities[0].majority_dice:
        error = summarise([quality.under_segmentation[name] for quality in qualities])
        dice = summarise([quality.majority_dice[name] for quality in qualities])
        if error.n_defined:
            found["structures"][name] = {
                "under_segmentation_error": error.mean,
                "majority_dice": dice.mean,
                "n_images": error.n_defined,
            }
    return found


def _log_quality(title: str, quality: dict[str, Any]) -> None:
    log.info("%s: {mean:.1f} superpixels per image ({min} to {max})".format(**quality["n_segments"]), title)
    for name, values in quality["structures"].items():
        log.info(
            "%s: %s: best possible mask has Dice %.4f, under-segmentation error %.4f (%d images)",
            *(title, name, values["majority_dice"], values["under_segmentation_error"], values["n_images"]),
        )


def draw_superpixels(
    folder: ImageFolder, config: SuperpixelConfig, structure: str, path: Path, n_images: int = 8
) -> None:
    """Draws some training images with the outlines of their superpixels and, in blue, of the expert's mask.

    Args:
        folder: the prepared images, with these superpixels.
        config: the superpixels.
        structure: whose mask.
        path: the picture, .png; replaced when it exists.
        n_images: in rows of four.

    Raises:
        DataError: no superpixels, or an image or a mask is missing.
    """
    ids = training_ids(folder)
    source = folder.superpixel_folder(config, structure)
    title = f"{folder.spec.name}, superpixels {source.name} and the outline of the {structure} (blue)"
    figure, grid = panel_grid(title, -(-n_images // 4), 4)
    chosen = np.unique(np.linspace(0, len(ids) - 1, n_images).round().astype(int))
    for axes, image_id in zip(grid.flat, (ids[index] for index in chosen), strict=False):
        image, pieces = to_8_bit(read_image(folder.image_path(image_id))), read_superpixels(source / f"{image_id}.png")
        mask = read_mask(folder.mask_path(image_id, structure))
        show_image(axes, mark_regions(image, pieces, FACTOR), f"{image_id}\n{len(np.unique(pieces))} superpixels")
        draw_outline(axes, enlarge(mask.astype(np.uint8), FACTOR) > 0, EXPERT_COLOUR)
    save_figure(figure, path)
