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
from models.prediction.dense import overlap
from models.prediction.partial import innermost, task_files, values_of
from models.prediction.scan_search import SEGMENTATION


def save_masks(folder: Path, each: PartialSet, found: Segmented, tasks: Sequence[Task]) -> None:
    """Writes the masks of all tasks: PNG files of images, NIfTI files of scans.

    Args:
        folder: receives <id>_<task>_segmentation.*, label maps; where classes overlap that are not nested, masks.
        each: the data set.
        found: in one of its images or scans.
        tasks: of the network, in the order of its channels.

    Raises:
        UserError: the folder cannot be written to.
    """
    if isinstance(each, ImageSet):
        pasted = (each.to_original(found.id, mask[0]) for mask in found.masks)
        masks = dict(zip(each.names, pasted, strict=True))
        files: dict[Path, np.ndarray] = {}
        for task in tasks:
            files |= task_files(folder, found.id, task, masks)
        write_pngs(files)
    elif isinstance(each, ScanSet):
        _save_scan(folder, each, found, tasks)


def _save_scan(folder: Path, each: ScanSet, found: Segmented, tasks: Sequence[Task]) -> None:
    masks: Mapping[str, Bool[np.ndarray, "D H W"]] = dict(zip(each.names, found.masks, strict=True))
    prepared = each.prepared(found.id)
    grid, stored = each.original_grid(found.id)
    for task in tasks:
        own = innermost(task, masks)
        maps = {f"{task.name}_{name}": mask.astype(np.uint8) for name, mask in own.items()}
        if not overlap(own):
            maps = {task.name: np.sum([value * own[name] for name, value in values_of(task).items()], axis=0)}
        for name, values in maps.items():
            volume = Volume(values.astype(np.uint8), prepared.affine)
            if grid is not None:
                volume = Volume(paste_back(volume, grid.shape, grid.affine).array, grid.affine, stored)
            write_nifti(folder / f"{found.id}_{name}{SEGMENTATION}", volume)
