"""Pictures of test images of several data sets: all classes that were found, and the truth where it is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dataloaders.partial.sets import PartialSet
from models.evaluation.partial_scores import Segmented
from util.results.overlays import Case, save_image_overlays

PLACES = {"worst": 0.0, "best": 1.0, "median": 0.5}  # images in pictures -> place in the order of their Dice
WIDTH_INCHES = 5.0  # of an image


def choose_images(dice: Mapping[str, float]) -> dict[str, str]:
    """Id -> which place it has, of the worst, the median and the best image, in this order; fewer where these are one.

    Args:
        dice: id -> mean Dice; images of undefined Dice are not chosen.
    """
    order = sorted((each for each in dice if not np.isnan(dice[each])), key=lambda image_id: dice[image_id])
    chosen: dict[str, str] = {}
    for name, place in PLACES.items() if order else ():
        chosen.setdefault(order[round(place * (len(order) - 1))], name)
    return {image_id: chosen[image_id] for image_id in order if image_id in chosen}


def spread_truth(truth: np.ndarray, known: tuple[int, ...], n_channels: int) -> np.ndarray:
    """(K, H, W) bool: the masks (N, H, W) of the known channels in their places; nothing in the others."""
    spread = np.zeros((n_channels, *truth.shape[1:]), bool)
    spread[list(known)] = truth
    return spread


def draw_images(
    path: Path, each: PartialSet, images: Sequence[Segmented], captions: Mapping[str, str], title: str
) -> None:
    """Writes a picture of some images of a data set.

    Args:
        path: the picture.
        each: the data set.
        images: what was found in them.
        captions: id -> caption; images are shown in this order.
        title: above all.
    """
    found = {image.id: image for image in images}
    cases: list[Case] = []
    for image_id, caption in captions.items():
        if image_id in found:
            one = found[image_id]
            z = int(one.scored.truth.sum((0, 2, 3)).argmax())  # of a scan the slice that shows most
            truth = spread_truth(one.scored.truth[:, z], each.known, len(each.names))
            cases.append((caption, each.picture(image_id, z), truth, one.masks[:, z]))
    save_image_overlays(path, cases, each.names, title, WIDTH_INCHES, "ground truth, where it is known")
