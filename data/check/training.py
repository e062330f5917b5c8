"""The check that a training run makes first: what its method reads of the prepared folder, and nothing else."""

from collections.abc import Callable
from typing import Any

from data.check import require_valid
from data.check.images import require_valid_images
from util.errors import ConfigError


def check_scans(data: Any) -> None:
    """Validates scans, labels, superpixels and the fold of few-shot data.

    Raises:
        DataError: there are errors; the message lists them all.
    """
    config = data.config
    needs_superpixels = config.train_on == "superpixels" and not data.learns_label_maps
    scale = config.superpix_scale if needs_superpixels else None
    require_valid(data.folder.folder, config.spec, scale, config.eval_fold, config.min_size_px, config.support_idx)


def check_images(data: Any) -> None:
    """Validates images, masks and, where they are trained on, noisy masks and superpixels.

    Raises:
        DataError: there are errors; the message lists them all.
    """
    config = data.config
    noise = None if data.trains_on_clean or not config.noise.alpha else config.noise
    superpixel = config.superpixel if data.needs_superpixels else None
    splits = ("train", "test")
    require_valid_images(data.folder.folder, config.spec, config.chosen, noise, superpixel, splits=splits)


def check_sources(data: Any) -> None:
    """Validates the scans of the sources and their labels; those of the tested domains are not opened.

    Raises:
        DataError: there are errors; the message lists them all.
    """
    division = data.division
    seen = (*division.unlabelled, *division.development)
    require_valid(data.folder.folder, data.config.spec, None, min_size_px=data.config.input_px, scans=seen)


def check_partial(data: Any) -> None:
    """Validates the images or scans of every data set, the labels that are learned, and needed pseudo-labels.

    Raises:
        DataError: there are errors; the message lists them all.
    """
    for each in data.trained:
        if each.spec.kind == "images":
            names = [data.names[channel] for channel in each.known]
            require_valid_images(each.place, each.spec, names, splits=("train",))
        else:
            require_valid(each.place, each.spec, None, min_size_px=each.side_px, scans=each.ids("train"))
    if "pseudo" in data.needs:
        _ = data.pseudo_classes
    data.require_separate()


# By family.
CHECKS: dict[str, Callable[[Any], None]] = {
    "fewshot": check_scans,
    "dense": check_images,
    "sources": check_sources,
    "partial": check_partial,
}


def require_fit(family: str, data: Any) -> None:
    """Validates the data of a run.

    Raises:
        ConfigError: no such family.
        DataError: there are errors; the message lists them all.
    """
    if family not in CHECKS:
        raise ConfigError(f"family {family!r}: no check for its data; expected one of {', '.join(CHECKS)}.")
    CHECKS[family](data)
