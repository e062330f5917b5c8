"""Made-up patients in the raw layout of each data set: try and test everything before any download.

Bodies and outlines are analytic, so the truth is known to the pixel; sizes, places, poses, shapes and brightness differ
between patients. Of the scanned patients one, the third, has lost the left kidney.
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from data.phantom.writers.chaos import CHAOST2_RAW
from data.phantom.writers.formats import Made, Picture, RawFormat, ScanRequest
from data.phantom.writers.isic import ISIC_RAW
from data.phantom.writers.jsrt import JSRT_RAW
from data.phantom.writers.sabs import SABS_RAW
from data.phantom.writers.shenzhen import SHENZHEN_RAW
from dataloaders.samples import Volume
from util.cli import parallel_map
from util.errors import ConfigError, UserError
from util.files import read_json, write_json

VOLUMES = {"chaost2": CHAOST2_RAW, "sabs": SABS_RAW}
PICTURES = {"isic2017": ISIC_RAW, "jsrt": JSRT_RAW, "shenzhen": SHENZHEN_RAW}
FORMATS = {**VOLUMES, **PICTURES}
RECORD = "phantom.json"
REVISION = 1  # raised when the same parameters begin to give other scans

_log = logging.getLogger(__name__)


def make_patient(dataset: str, scan_index: int, seed: int = 0, size_px: int = 160) -> tuple[Volume, Volume]:
    """Makes one scan in memory.

    Args:
        dataset: a key of `VOLUMES`.
        scan_index: position among the published scan ids, from 0.
        seed: another seed, other patients.
        size_px: rows and columns.

    Returns:
        Image and label (D, H, W), label values as in the catalogue.

    Raises:
        ConfigError: an unknown data set, or a number out of range.
    """
    raw = _format(VOLUMES, dataset, scan_index + 1, size_px, seed)
    return raw.make(ScanRequest(scan_index, seed, size_px))


def make_picture(dataset: str, index: int, seed: int = 0, size_px: int = 160) -> Picture:
    """Makes one picture in memory.

    Args:
        dataset: a key of `PICTURES`.
        index: position among the published images, from 0.
        seed: another seed, other patients.
        size_px: the shorter side.

    Returns:
        The image as its file holds it, and the masks of all its structures.

    Raises:
        ConfigError: an unknown data set, or a number out of range.
    """
    raw = _format(PICTURES, dataset, index + 1, size_px, seed)
    return raw.make(ScanRequest(index, seed, size_px))


def write_phantom(dataset: str, out: Path, n_scans: int = 8, size_px: int = 160, seed: int = 0, jobs: int = 1) -> None:
    """Writes the first `n_scans` scans in the raw layout of `dataset`, and a record of the parameters.

    Scans that the same parameters wrote before are left alone, so an interrupted run can be taken up again.

    Args:
        dataset: a key of `FORMATS`.
        out: folder to hold the raw layout; made when absent.
        n_scans: 1 to the published number of scans or images.
        size_px: rows and columns; of a picture: the shorter side.
        seed: another seed, other patients.
        jobs: processes; the result does not depend on it.

    Raises:
        ConfigError: an unknown data set, or a number out of range.
        UserError: `out` holds scans of other parameters or of another origin, or cannot be written to.
    """
    raw = _format(FORMATS, dataset, n_scans, size_px, seed)
    parameters = {"dataset": dataset, "n_scans": n_scans, "size_px": size_px, "seed": seed, "revision": REVISION}
    _refuse_foreign_content(out, raw, parameters)
    write_json(out / RECORD, parameters)
    requests = [ScanRequest(index, seed, size_px) for index in range(n_scans)]
    for _ in parallel_map(partial(raw.write, out), requests, jobs, f"phantom {dataset}"):
        pass
    _log.info("%s: phantom of %s, %d scans, seed %d.", out, dataset, n_scans, seed)


def _format(
    formats: Mapping[str, RawFormat[Made]], dataset: str, n_scans: int, size_px: int, seed: int
) -> RawFormat[Made]:
    if dataset not in formats:
        raise ConfigError(f"phantom {dataset!r}: unknown data set; expected one of {', '.join(formats)}.")
    raw = formats[dataset]
    limits = {"scans": (n_scans, 1, raw.n_published), "size_px": (size_px, *raw.sizes_px), "seed": (seed, 0, 2**32 - 1)}
    for name, (value, lowest, highest) in limits.items():
        if not lowest <= value <= highest:
            raise ConfigError(f"phantom {dataset}: {name}={value}; expected {lowest} to {highest}.")
    if size_px % raw.size_step_px:
        raise ConfigError(f"phantom {dataset}: size_px={size_px}; expected a multiple of {raw.size_step_px}.")
    return raw


def _refuse_foreign_content(out: Path, raw: RawFormat, parameters: dict[str, str | int]) -> None:
    record = out / RECORD
    if record.exists():
        found = read_json(record)
        if found != parameters:
            raise UserError(
                f"{record}: the phantom in this folder was made with {found}, asked for are {parameters}. Choose "
                f"another --out, or delete {', '.join((*raw.folders, RECORD))} in {out} and run the command again."
            )
        return
    foreign = [folder for folder in raw.folders if (out / folder).exists()]
    if foreign:
        raise UserError(
            f"{out}: holds {', '.join(foreign)} but no {RECORD}, so a phantom did not write it. Nothing was changed. "
            f"Choose another --out, or move {', '.join(foreign)} away first."
        )
