"""SCGM, grey matter of the spinal cord, MR of four sites: the challenge's NIfTI files with the masks of four raters.

Layout: `siteX-scNN-image.nii.gz` and `siteX-scNN-mask-r1.nii.gz` to `-r4.nii.gz`, in any folders; the challenge's test
scans have no masks.
Source: Prados et al., Spinal cord grey matter segmentation challenge (NeuroImage 2017).
"""

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.sources.raw_scans import Annotation, RawScan, ScanSource
from data.sources.raw_scans import account as account_for
from dataloaders.description import DatasetSpec
from dataloaders.io.geometry import on_grid_of
from dataloaders.io.volumes import read_volume
from dataloaders.rules import STORED
from dataloaders.samples import Origin, Volume
from dataloaders.scans.labels import in_full, whole_values
from util.errors import DataError
from util.ids import natural_key
from util.inventory import first_names, list_files

FILE_NAME = re.compile(r"(?P<scan>site(?P<site>[1-4])-sc\d+)-(image|mask-r(?P<rater>\d+))\.nii(\.gz)?", re.IGNORECASE)
DOMAINS = "ABCD"  # of sites 1 to 4
N_RATERS = 4
GREY_MATTER, WHITE_MATTER = 1, 2  # in the masks; the rest of the cord has no further value

log = logging.getLogger(__name__)


def find_scans(raw: Path, spec: DatasetSpec) -> list[RawScan]:
    """Finds the scans and the masks of their raters.

    Args:
        raw: folder of the download.
        spec: not needed; the layout is fixed.

    Returns:
        The scans in natural order of their ids, such as site1-sc01. One without masks is not labelled. One that cannot
        be used, such as one with two images, is returned with the reason.

    Raises:
        DataError: no scans.
    """
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))  # scan -> rater or "" -> files
    for path in list_files(raw, "")[0]:
        if match := FILE_NAME.fullmatch(path.name):
            found[match["scan"].lower()][match["rater"] or ""].append(path)
    scans = [_scan(name, found[name]) for name in sorted(found, key=natural_key) if found[name].get("")]
    if not scans:
        raise DataError(
            f"SCGM: no scans under {raw}; expected site1-sc01-image.nii.gz and site1-sc01-mask-r1.nii.gz to "
            "-r4.nii.gz. Download the data of the challenge (see data/SCGM/README.md), name its folder with --raw, or "
            "make a stand-in: `frugalseg phantom scgm --out DIR`."
        )
    return scans


def _scan(name: str, files: dict[str, list[Path]]) -> RawScan:
    match = FILE_NAME.fullmatch(files[""][0].name)
    site = int(match["site"]) if match else 0
    raters = [files[rater] for rater in sorted(files, key=natural_key) if rater]
    twice = [paths for paths in (files[""], *raters) if len(paths) > 1]
    return RawScan(
        name,
        files[""][0],
        tuple(Annotation(paths[0]) for paths in raters),
        Origin(patient=name, domain=DOMAINS[site - 1]),
        fault=f"{twice[0][0]}, {twice[0][1]}: twice the same; expected one. Remove one of them." if twice else "",
    )


def account(raw: Path, scans: Sequence[RawScan]) -> str:
    """One line that counts the files below the folder and names those that are left out."""

    def why_unused(file: Path) -> str:
        match = FILE_NAME.fullmatch(file.name)
        if not match:
            return "not named as siteX-scNN-image.nii.gz or siteX-scNN-mask-rN.nii.gz"
        return "mask without image" if match["rater"] else "a second file of a scan"

    return account_for("SCGM", raw, scans, why_unused)


def read_scan(scan: RawScan, spec: DatasetSpec) -> tuple[Volume, Volume | None]:
    """Reads a scan, and its grey matter (uint8, 1) where it has masks: what more than half of the raters say.

    With fewer raters than four, the same rule holds for those that are there, with a warning.

    Raises:
        DataError: a file is damaged, a mask has another shape or place than the image, or an unknown value.

    Source: semi-supervised domain generalisation takes the grey matter alone; white matter counts as background.
    """
    image = read_volume(scan.image)
    if not scan.is_labelled:
        return image, None
    votes = [_grey_matter(file, image, scan) for annotation in scan.annotations for file in annotation.files]
    if len(votes) < N_RATERS:
        log.warning("scan %s: masks of %d raters; expected %d", scan.id, len(votes), N_RATERS)
    label = 2 * np.sum(votes, axis=0) > len(votes)
    return image, Volume(label.astype(np.uint8), image.affine, image.stored)


def _grey_matter(path: Path, image: Volume, scan: RawScan) -> np.ndarray:
    """Where one rater sees grey matter (D, H, W), bool."""
    mask = read_volume(path)
    try:
        values = whole_values(on_grid_of(image, mask, STORED, scan.image.name).array)
        unknown = np.setdiff1d(values, [0, GREY_MATTER, WHITE_MATTER])
        if len(unknown):
            raise DataError(
                f"values {first_names([in_full(value) for value in unknown])}; expected {GREY_MATTER} grey matter, "
                f"{WHITE_MATTER} white matter and 0. Download it again."
            )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return values == GREY_MATTER


SOURCE = ScanSource(find_scans, read_scan, account)
