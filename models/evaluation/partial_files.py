"""Masks of several tasks on the grids of the original pictures and scans."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from dataloaders.io.geometry import paste_back
from dataloaders.io.nifti import write_nifti
from dataloaders.io.png import write_pngs
from dataloaders.partial.sets import ImageSet, PartialSet, ScanSet
from dataloaders.samples import Task, Volume
from models.evaluation.partial_scores import Segmented
from models.methods.base import Method
from models.prediction.dense import overlap
from models.prediction.partial import innermost, separate, task_files, values_of
from models.prediction.scan_search import SEGMENTATION
from models.prediction.segmenter import masks_of_image


def save_masks(folder: Path, each: PartialSet, found: Segmented, tasks: Sequence[Task], method: Method) -> None:
    """Writes the masks of all tasks: PNG files of images, NIfTI files of scans.

    They are for people: those of images follow from probabilities at the size of the picture, and where exclusive
    classes overlap, a pixel has the most probable one. The masks that are scored are not changed.

    Args:
        folder: receives <id>_<task>_segmentation.*, label maps; where independent classes overlap, masks.
        each: the data set.
        found: in one of its images or scans.
        tasks: of the network, in the order of its channels.
        method: with the rule from probabilities to masks.

    Raises:
        UserError: the folder cannot be written to.
    """
    if isinstance(each, ImageSet):
        shares = each.to_original(found.id, found.probabilities[:, 0])
        masks = dict(zip(each.names, separate(tasks, shares, masks_of_image(method, shares)), strict=True))
        files: dict[Path, np.ndarray] = {}
        for task in tasks:
            files |= task_files(folder, found.id, task, masks)
        write_pngs(files)
    elif isinstance(each, ScanSet):
        shown = separate(tasks, found.probabilities, found.masks)
        _save_scan(folder, each, found.id, dict(zip(each.names, shown, strict=True)), tasks)


def _save_scan(
    folder: Path, each: ScanSet, scan: str, masks: Mapping[str, Bool[np.ndarray, "D H W"]], tasks: Sequence[Task]
) -> None:
    prepared = each.prepared(scan)
    grid, stored = each.original_grid(scan)
    for task in tasks:
        own = innermost(task, masks)
        maps = {f"{task.name}_{name}": mask.astype(np.uint8) for name, mask in own.items()}
        if not overlap(own):
            maps = {task.name: np.sum([value * own[name] for name, value in values_of(task).items()], axis=0)}
        for name, values in maps.items():
            volume = Volume(values.astype(np.uint8), prepared.affine)
            if grid is not None:
                volume = Volume(paste_back(volume, grid.shape, grid.affine).array, grid.affine, stored)
            write_nifti(folder / f"{scan}_{name}{SEGMENTATION}", volume)
