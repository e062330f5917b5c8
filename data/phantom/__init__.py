"""Synthetic patients in the raw layout of each data set, for tests and demos without downloads.

Bodies and outlines are analytic, so the ground truth is exact. Size, position, pose, shape and brightness vary between
patients; in the abdominal data sets on request also fat, size of the body and field of view (`Build`). The third
patient of these sets has no left kidney. Patients of data sets of several domains are dealt to these in turn.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from data.phantom.bodies.build import BUILDS, Build, BuildChoice
from data.phantom.writers.chaos import CHAOST2_RAW
from data.phantom.writers.formats import LabelledImage, RawFormat, Sample, ScanRequest
from data.phantom.writers.fundus import FUNDUS_RAW
from data.phantom.writers.isic import ISIC_RAW
from data.phantom.writers.jsrt import JSRT_RAW
from data.phantom.writers.mms import MMS_RAW
from data.phantom.writers.sabs import SABS_RAW
from data.phantom.writers.scgm import SCGM_RAW
from data.phantom.writers.shenzhen import SHENZHEN_RAW
from dataloaders.samples import Cine, Volume
from util.cli import parallel_map
from util.errors import ConfigError, UserError
from util.files import read_json, write_json

VOLUMES = {"chaost2": CHAOST2_RAW, "sabs": SABS_RAW, "scgm": SCGM_RAW}
CINES = {"mms": MMS_RAW}
IMAGES = {"isic2017": ISIC_RAW, "jsrt": JSRT_RAW, "shenzhen": SHENZHEN_RAW, **FUNDUS_RAW}
FORMATS = {**VOLUMES, **CINES, **IMAGES}
PARAMETERS_FILE = "phantom.json"
REVISION = 1  # increment when the same parameters give different scans

_log = logging.getLogger(__name__)


def make_patient(
    dataset: str, scan_index: int, seed: int = 0, size_px: int = 160, build: BuildChoice = "standard"
) -> tuple[Volume, Volume]:
    """Generates one scan in memory.

    Args:
        dataset: a key of `VOLUMES`.
        scan_index: index into the published scan ids.
        seed: different seeds give different patients.
        size_px: rows and columns.
        build: of abdomens; "varied": between lean and obese, at random; or as given. The organs are the same for all.

    Returns:
        Image and label (D, H, W), with the label values of the data set.

    Raises:
        ConfigError: unknown data set, a number out of range, or a data set that has no builds.
    """
    raw = _format(VOLUMES, dataset, scan_index + 1, size_px, seed, build)
    return raw.make(ScanRequest(scan_index, seed, size_px, build))


def make_cine(dataset: str, scan_index: int, seed: int = 0, size_px: int = 160) -> Cine:
    """Generates one scan with several frames in memory.

    Args:
        dataset: a key of `CINES`.
        scan_index: index of the patient.
        seed: different seeds give different patients.
        size_px: see the data set's module in `data.phantom.writers`.

    Returns:
        All frames, and the labels of the annotated ones.

    Raises:
        ConfigError: unknown data set, or a number out of range.
    """
    raw = _format(CINES, dataset, scan_index + 1, size_px, seed)
    return raw.make(ScanRequest(scan_index, seed, size_px))


def make_image(dataset: str, index: int, seed: int = 0, size_px: int = 160) -> LabelledImage:
    """Generates one image with its masks in memory.

    Args:
        dataset: a key of `IMAGES`.
        index: index into the published images.
        seed: different seeds give different patients.
        size_px: length of the shorter side.

    Returns:
        The image as stored in its file, and the masks of all structures.

    Raises:
        ConfigError: unknown data set, or a number out of range.
    """
    raw = _format(IMAGES, dataset, index + 1, size_px, seed)
    return raw.make(ScanRequest(index, seed, size_px))


def write_phantom(
    dataset: str,
    out: Path,
    n_scans: int = 8,
    size_px: int = 160,
    seed: int = 0,
    jobs: int = 1,
    build: BuildChoice = "standard",
) -> None:
    """Writes the first `n_scans` scans in the raw layout of `dataset`, and a file with the parameters.

    Existing scans with the same parameters are kept, so that an interrupted run can be resumed.

    Args:
        dataset: a key of `FORMATS`.
        out: output folder; created if missing.
        n_scans: 1 to the published number of scans or images.
        size_px: rows and columns; for images the shorter side.
        seed: different seeds give different patients.
        jobs: number of processes; does not affect the result.
        build: of the patients, see `make_patient`.

    Raises:
        ConfigError: unknown data set, a number out of range, or a data set that has no builds.
        UserError: `out` contains scans with other parameters or from another source, or is not writable.
    """
    raw = _format(FORMATS, dataset, n_scans, size_px, seed, build)
    parameters: dict[str, Any] = {"dataset": dataset, "n_scans": n_scans, "size_px": size_px, "seed": seed}
    parameters |= {"revision": REVISION}
    if build != "standard":
        parameters |= {"build": asdict(build) if isinstance(build, Build) else build}
    _check_output_folder(out, raw, parameters)
    write_json(out / PARAMETERS_FILE, parameters)
    requests = [ScanRequest(index, seed, size_px, build) for index in range(n_scans)]
    for _ in parallel_map(partial(raw.write, out), requests, jobs, f"phantom {dataset}"):
        pass
    if raw.finish is not None:
        raw.finish(out, requests)
    _log.info("%s: phantom of %s, %d scans, seed %d.", out, dataset, n_scans, seed)


def _format(
    formats: Mapping[str, RawFormat[Sample]],
    dataset: str,
    n_scans: int,
    size_px: int,
    seed: int,
    build: BuildChoice = "standard",
) -> RawFormat[Sample]:
    if dataset not in formats:
        raise ConfigError(f"phantom {dataset!r}: unknown data set; expected one of {', '.join(formats)}.")
    raw = formats[dataset]
    limits = {"scans": (n_scans, 1, raw.n_published), "size_px": (size_px, *raw.sizes_px), "seed": (seed, 0, 2**32 - 1)}
    for name, (value, lowest, highest) in limits.items():
        if not lowest <= value <= highest:
            raise ConfigError(f"phantom {dataset}: {name}={value}; expected {lowest} to {highest}.")
    if size_px % raw.size_step_px:
        raise ConfigError(f"phantom {dataset}: size_px={size_px}; expected a multiple of {raw.size_step_px}.")
    if not isinstance(build, Build) and build not in BUILDS:
        raise ConfigError(f"phantom {dataset}: build={build!r}; expected a Build, or one of {', '.join(BUILDS)}.")
    if build != "standard" and not raw.has_builds:
        able = ", ".join(name for name, each in FORMATS.items() if each.has_builds)
        raise ConfigError(f"phantom {dataset}: its patients are all of standard build; those of {able} can vary.")
    return raw


def _check_output_folder(out: Path, raw: RawFormat, parameters: Mapping[str, Any]) -> None:
    record = out / PARAMETERS_FILE
    if record.exists():
        found = read_json(record)
        if found != parameters:
            raise UserError(
                f"{record}: the phantom in this folder was generated with {found}, but {parameters} were requested. "
                f"Choose another --out, or delete {', '.join((*raw.folders, PARAMETERS_FILE))} in {out} and run the "
                "command again."
            )
        return
    foreign = [folder for folder in raw.folders if (out / folder).exists()]
    if foreign:
        raise UserError(
            f"{out}: contains {', '.join(foreign)} but no {PARAMETERS_FILE}, so it is not a phantom. Nothing was "
            f"changed. Choose another --out, or move {', '.join(foreign)} elsewhere first."
        )
