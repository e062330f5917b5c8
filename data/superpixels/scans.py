"""Cuts every slice into superpixels, the pseudo-organs that training asks for: `python -m data.superpixels FOLDER`.

    python -m data.superpixels data/CHAOST2/chaos_MR_T2_normalized --dataset CHAOST2 --scale MIDDLE --jobs 8

Writes superpix-MIDDLE_<scan id>.nii.gz beside image_<scan id>.nii.gz. A second run redoes only scans whose image, or
whose parameters, have changed. `--picture FILE.png` draws some slices with their outlines.
"""

import argparse
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from skimage.segmentation import mark_boundaries

from data.prepare.class_index import numbered_files
from data.superpixels.regions import MIN_AREA_PX, SCALES, Recipe, Supervoxels, superpixels_of
from dataloaders.catalog import dataset
from dataloaders.description import DatasetSpec
from dataloaders.io.nifti import read_nifti, voxel_hash, write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.manifest import Manifest
from util.cli import parallel_map
from util.errors import DataError
from util.files import atomic_write
from util.results.pictures import for_viewing

SLICES_PER_BLOCK = 32  # seconds of work, against a fraction of one to read the scan again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Scan:
    """What is known of an image without keeping its voxels."""

    scan_id: int
    path: Path
    depth: int
    affine: np.ndarray
    image_sha256: str


def write_pseudo_labels(
    folder: Path,
    spec: DatasetSpec,
    scale: str = "MIDDLE",
    numbering: str = "compact",
    min_area_px: int = MIN_AREA_PX,
    jobs: int = 1,
) -> None:
    """Writes `superpix-<scale>_<scan id>.nii.gz` for every image of a prepared folder.

    Scans whose image and parameters are those of the manifest are passed over, so that an interrupted run goes on
    where it stopped.

    Args:
        folder: prepared folder; `manifest.json` is made when absent.
        spec: the data set.
        scale: "MIDDLE" (the paper's), "SMALL", "SLIC" or "SUPERVOXEL".
        numbering: "compact", or "legacy" for ids as the released code writes them (scale MIDDLE only).
        min_area_px: smaller pieces are dropped (compact numbering). The default is one cell of the feature grid.
        jobs: processes.

    Raises:
        ConfigError: an argument is unknown or out of range.
        DataError: no image in the folder, or a damaged one.

    Source: SSL-ALPNet, section 3.1 and released code (MIDDLE).
    Note: the released code loses the first region and keeps pieces of a few pixels; `compact` does neither.
    """
    recipe = Recipe(scale, spec.foreground_above, numbering, min_area_px)
    scans = _scans_in(folder, spec, jobs)
    manifest = Manifest.load(folder, spec.name)
    record = manifest.pseudo_labels.get(scale, {})
    if record.get("parameters") != recipe.parameters():
        record = {"parameters": recipe.parameters(), "scans": {}}
    manifest.pseudo_labels[scale] = record
    due = [scan for scan in scans if not _is_current(scan, record, scale)]
    for scan in due:
        record["scans"].pop(str(scan.scan_id), None)
    manifest.save(folder)
    for scan, ids in _segmented(due, recipe, jobs):
        write_nifti(_output(scan.path, scale), Volume(ids, scan.affine))
        record["scans"][str(scan.scan_id)] = {
            "image_sha256": scan.image_sha256,
            "n_ids": _count(ids, scale),
            "scikit_image": version("scikit-image"),  # ties are broken in an order of its own
        }
        manifest.save(folder)
    n_ids = sum(record["scans"][str(scan.scan_id)]["n_ids"] for scan in scans)
    log.info("superpix-%s: %d ids in %d scans of %s", scale, n_ids, len(scans), folder)
    log.info("superpix-%s: %d of %d scans skipped, being up to date", scale, len(scans) - len(due), len(scans))


def _output(image: Path, scale: str) -> Path:
    return image.with_name(image.name.replace("image_", f"superpix-{scale}_"))


def _is_current(scan: _Scan, record: dict[str, Any], scale: str) -> bool:
    entry = record["scans"].get(str(scan.scan_id), {})
    return entry.get("image_sha256") == scan.image_sha256 and _output(scan.path, scale).exists()


def _count(ids: np.ndarray, scale: str) -> int:
    """Number of ids: per slice and summed, or of the whole scan for supervoxels."""
    groups = [ids] if isinstance(SCALES[scale], Supervoxels) else ids
    return sum(int(np.count_nonzero(np.bincount(group.ravel())[1:])) for group in groups)


def _scans_in(folder: Path, spec: DatasetSpec, jobs: int) -> list[_Scan]:
    return list(parallel_map(_inspect, _images(folder, spec).items(), jobs, "reading"))


def _images(folder: Path, spec: DatasetSpec) -> dict[int, Path]:
    paths = numbered_files(folder, "image")
    if not paths:
        raise DataError(
            f"{folder}: no image_<scan id>.nii.gz found; expected the prepared images of {spec.name}. Run "
            f"`python -m data.prepare {spec.name}` first, or name another folder."
        )
    return paths


def _inspect(item: tuple[int, Path]) -> _Scan:
    scan_id, path = item
    volume = read_nifti(path)
    if not np.isfinite(volume.array).all():
        raise DataError(f"{path}: NaN or infinite voxels; expected finite intensities. Prepare or copy the scan again.")
    return _Scan(scan_id, path, len(volume.array), volume.affine, voxel_hash(volume.array))


def _segmented(scans: list[_Scan], recipe: Recipe, jobs: int) -> Iterator[tuple[_Scan, np.ndarray]]:
    """Yields every scan with its ids, int16 where they fit; several processes share the slices of a scan."""
    is_whole = jobs <= 1 or isinstance(SCALES[recipe.scale], Supervoxels)
    n_blocks = {scan.scan_id: 1 if is_whole else math.ceil(scan.depth / SLICES_PER_BLOCK) for scan in scans}
    blocks = [(scan.path, part, n_blocks[scan.scan_id]) for scan in scans for part in range(n_blocks[scan.scan_id])]
    results = parallel_map(partial(_segment_block, recipe=recipe), blocks, jobs, f"superpix-{recipe.scale}")
    for scan in scans:
        yield scan, np.concatenate(list(islice(results, n_blocks[scan.scan_id])))


def _segment_block(block: tuple[Path, int, int], recipe: Recipe) -> np.ndarray:
    path, part, n_parts = block
    volume = read_nifti(path)
    ids = superpixels_of(Volume(np.array_split(volume.array, n_parts)[part], volume.affine), recipe)
    return ids.astype(np.int16 if ids.max() <= np.iinfo(np.int16).max else np.int32)


def contact_sheet(folder: Path, spec: DatasetSpec, scale: str, path: Path) -> None:
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
    figure = Figure(figsize=(12, 3.2 * len(chosen)), layout="constrained")
    figure.suptitle(f"{spec.name}, superpix-{scale}")
    for row, (scan_id, image_path) in zip(figure.subplots(len(chosen), 4, squeeze=False), chosen, strict=True):
        scan, regions = read_nifti(image_path), read_nifti(_output(image_path, scale))
        (image, _, aspect), (ids, _, _) = (for_viewing(one.array, scan.affine) for one in (scan, regions))
        shown = np.flatnonzero(ids.any((1, 2))) if ids.any() else np.arange(len(ids))
        for axes, z in zip(row, shown[np.linspace(0, len(shown) - 1, 6).round().astype(int)[1:-1]], strict=True):
            axes.imshow(_outlined(image[z], ids[z].astype(np.int64)), aspect=aspect)
            axes.set_title(f"scan {scan_id}, slice {z}: {np.count_nonzero(np.unique(ids[z]))} ids", fontsize=9)
            axes.set_axis_off()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def _outlined(slice_: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """RGB in [0, 1], three times the slice's size, so that the outlines are thin."""
    low, high = np.percentile(slice_, (1, 99.5))
    grey = np.clip((slice_ - low) / max(high - low, 1e-6), 0, 1)
    large_grey, large_ids = (array.repeat(3, 0).repeat(3, 1) for array in (grey, ids))
    return np.asarray(mark_boundaries(large_grey, large_ids, color=(1, 0.8, 0), mode="inner"))


def main() -> None:
    """Reads the command line; writes the superpixels and, when asked, the picture."""
    parser = argparse.ArgumentParser(prog="python -m data.superpixels", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="prepared folder holding image_<scan id>.nii.gz")
    parser.add_argument("--dataset", required=True, help="CHAOST2 or SABS")
    parser.add_argument("--scale", default="MIDDLE", choices=SCALES, help="how slices are cut (default MIDDLE)")
    parser.add_argument("--numbering", default="compact", choices=("compact", "legacy"))
    parser.add_argument(
        "--min-area-px", type=int, default=MIN_AREA_PX, help=f"drop smaller pieces (default {MIN_AREA_PX})"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="also draw some slices with their outlines")
    given = parser.parse_args()
    spec = dataset(given.dataset)
    write_pseudo_labels(given.folder, spec, given.scale, given.numbering, given.min_area_px, given.jobs)
    if given.picture:
        contact_sheet(given.folder, spec, given.scale, given.picture)
