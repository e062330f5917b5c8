"""Superpixels of every slice, the pseudo-labels of self-supervised training: `frugalseg superpixels TARGET`.

Writes superpix-MIDDLE_<scan id>.nii.gz next to image_<scan id>.nii.gz, for scans with and without label. A second run
repeats only scans whose image or parameters have changed.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from data.superpixels.regions import MIN_AREA_PX, SCALES, Recipe, Supervoxels, foreground_threshold, segment
from dataloaders.description import DatasetSpec
from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.folder import prepare_command, scan_files, scan_path
from dataloaders.scans.manifest import Manifest
from util.errors import DataError
from util.items import Failures, attempt_each, catching, raise_failures
from util.records import Record, hash_files
from util.results.overlays import for_viewing
from util.results.pictures import mark_regions, panel_grid, save_figure, show_image, stretch_greys

SLICES_PER_BLOCK = 32  # seconds of work, against a fraction of one to read the scan again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Scan:
    """What is known of an image without keeping its voxels in memory."""

    scan_id: str
    path: Path
    depth: int
    affine: np.ndarray
    foreground_above: float  # prepared intensity


def write_pseudo_labels(
    folder: Path,
    spec: DatasetSpec,
    scale: str = "MIDDLE",
    numbering: str = "compact",
    min_area_px: int = MIN_AREA_PX,
    jobs: int = 1,
) -> None:
    """Writes `superpix-<scale>_<scan id>.nii.gz` for every image of a prepared folder.

    Scans whose image and parameters are those of the manifest are skipped, so that an interrupted run resumes where it
    stopped.

    Args:
        folder: prepared folder; `manifest.json` is written when absent.
        spec: the data set.
        scale: "MIDDLE" (the paper's), "SMALL", "SLIC" or "SUPERVOXEL".
        numbering: "compact", or "legacy" for ids as the released code writes them (scale MIDDLE only).
        min_area_px: smaller pieces are dropped (compact numbering). The default is one cell of the feature grid.
        jobs: processes.

    Raises:
        ConfigError: an argument is unknown or out of range.
        DataError: no image in the folder.
        FailedItemsError: some images are damaged; the message names them. All others are done.

    Source: SSL-ALPNet, section 3.1 and released code (MIDDLE).
    Note: the released code loses the first region and keeps pieces of a few pixels; `compact` does neither.
    """
    recipe = Recipe(scale, spec.foreground_above, numbering, min_area_px)
    images = _images(folder, spec)
    hashes = dict.fromkeys((path.name for path in images.values()), "") | hash_files(images.values(), folder)
    wanted = {scan: Record(recipe.parameters(), {path.name: hashes[path.name]}) for scan, path in images.items()}
    manifest = Manifest.load(folder, spec.name)
    names = {scan: f"superpix-{scale}_{scan}" for scan in images}
    due = [scan for scan in images if not _is_current(manifest.records.get(names[scan]), wanted[scan], folder)]
    for scan in due:
        manifest.records.pop(names[scan], None)
    failures: Failures = {}
    items, inspect = {scan: (scan, images[scan]) for scan in due}, partial(_inspect, recipe=recipe)
    inspected = [scan for _, scan in attempt_each(inspect, items, jobs, "reading", failures, lambda item: item[1])]
    manifest.save(folder)
    for scan, ids in _segmented(inspected, recipe, jobs, failures):
        with catching(failures, scan.scan_id, scan.path):
            output = scan_path(folder, f"superpix-{scale}", scan.scan_id)
            write_nifti(output, Volume(ids, scan.affine))
            facts = {
                "foreground_above": scan.foreground_above,
                "n_ids": _count(ids, scale),
                "scikit_image": version("scikit-image"),  # versions may break ties differently
            }
            made = hash_files([output], folder)
            manifest.records[names[scan.scan_id]] = replace(wanted[scan.scan_id], made=made, facts=facts)
            manifest.save(folder)
    n_ids = sum(manifest.records[name].facts["n_ids"] for scan, name in names.items() if scan not in failures)
    log.info("superpix-%s: %d ids in %d scans of %s", scale, n_ids, len(images) - len(failures), folder)
    log.info("superpix-%s: %d of %d scans skipped, as they are up to date", scale, len(images) - len(due), len(images))
    raise_failures(failures, len(images), f"{folder}, superpix-{scale}")


def count_pseudo_labels(folder: Path, spec: DatasetSpec, scale: str) -> dict[str, int]:
    """Scan id -> number of superpixels, of all scans of a prepared folder that have any of this scale."""
    records = Manifest.load(folder, spec.name).records
    found = {scan: records.get(f"superpix-{scale}_{scan}") for scan in scan_files(folder, "image")}
    return {scan: record.facts["n_ids"] for scan, record in found.items() if record is not None}


def _is_current(record: Record | None, wanted: Record, folder: Path) -> bool:
    """Whether superpixels were made with the same parameters from the same image, and are as they were written."""
    return record is not None and not record.differences(wanted.settings, wanted.made_from) and record.is_intact(folder)


def _count(ids: np.ndarray, scale: str) -> int:
    """Number of ids: per slice and summed, or of the whole scan for supervoxels."""
    groups = [ids] if isinstance(SCALES[scale], Supervoxels) else ids
    return sum(int(np.count_nonzero(np.bincount(group.ravel())[1:])) for group in groups)


def _images(folder: Path, spec: DatasetSpec) -> dict[str, Path]:
    paths = scan_files(folder, "image")
    if not paths:
        raise DataError(
            f"{folder}: no image_<scan id>.nii.gz found; expected the prepared images of {spec.name}. Run "
            f"`{prepare_command(spec)}` first, or name another folder."
        )
    return paths


def _inspect(item: tuple[str, Path], recipe: Recipe) -> _Scan:
    scan_id, path = item
    volume = read_nifti(path)
    if not np.isfinite(volume.array).all():
        raise DataError(f"{path}: NaN or infinite voxels; expected finite intensities. Prepare or copy the scan again.")
    above = foreground_threshold(volume.array, recipe)
    return _Scan(scan_id, path, len(volume.array), volume.affine, above)


def _segmented(scans: list[_Scan], recipe: Recipe, jobs: int, failures: Failures) -> Iterator[tuple[_Scan, np.ndarray]]:
    """Yields every scan with its ids, int16 where they fit; the slices of a scan are divided among processes."""
    is_whole = jobs <= 1 or isinstance(SCALES[recipe.scale], Supervoxels)
    n_blocks = {scan.scan_id: 1 if is_whole else math.ceil(scan.depth / SLICES_PER_BLOCK) for scan in scans}
    blocks = {
        f"{scan.scan_id}/{part}": (scan, part, n_blocks[scan.scan_id])
        for scan in scans
        for part in range(n_blocks[scan.scan_id])
    }
    work, failed = partial(_segment_block, recipe=recipe), Failures()
    parts: dict[str, list[np.ndarray]] = {}
    for block, ids in attempt_each(work, blocks, jobs, f"superpix-{recipe.scale}", failed, lambda item: item[0].path):
        scan, _, n_parts = blocks[block]
        parts.setdefault(scan.scan_id, []).append(ids)
        if len(parts[scan.scan_id]) == n_parts:
            yield scan, np.concatenate(parts.pop(scan.scan_id))
    failures |= {block.rpartition("/")[0]: reason for block, reason in failed.items()}


def _segment_block(block: tuple[_Scan, int, int], recipe: Recipe) -> np.ndarray:
    scan, part, n_parts = block
    volume = read_nifti(scan.path)
    part_of_scan = Volume(np.array_split(volume.array, n_parts)[part], volume.affine)
    ids = segment(part_of_scan, recipe, scan.foreground_above)
    return ids.astype(np.int16 if ids.max() <= np.iinfo(np.int16).max else np.int32)


def draw_pseudo_labels(folder: Path, spec: DatasetSpec, scale: str, path: Path) -> None:
    """Draws four slices of up to three scans with the outlines of their superpixels, the body's front upwards.

    Args:
        folder: prepared folder with superpixels.
        spec: the data set.
        scale: which superpixels.
        path: the picture, .png; replaced when it exists.

    Raises:
        DataError: no scan in the folder, or one without superpixels of this scale.
    """
    images = list(_images(folder, spec).items())
    chosen = [images[row] for row in np.unique(np.linspace(0, len(images) - 1, 3).round().astype(int))]
    figure, grid = panel_grid(f"{spec.name}, superpix-{scale}", len(chosen), 4, (3.0, 2.9))
    for row, (scan_id, image_path) in zip(grid, chosen, strict=True):
        scan, regions = read_nifti(image_path), read_nifti(scan_path(folder, f"superpix-{scale}", scan_id))
        (image, _, aspect), (ids, _, _) = (for_viewing(one.array, scan.affine) for one in (scan, regions))
        shown = np.flatnonzero(ids.any((1, 2))) if ids.any() else np.arange(len(ids))
        for axes, z in zip(row, shown[np.linspace(0, len(shown) - 1, 6).round().astype(int)[1:-1]], strict=True):
            title = f"scan {scan_id}, slice {z}: {np.count_nonzero(np.unique(ids[z]))} ids"
            show_image(axes, mark_regions(stretch_greys(image[z]), ids[z].astype(np.int32)), title, aspect=aspect)
    save_figure(figure, path)
