r"""Segments your own scans with a trained few-shot network and one annotated scan.

    python -m models.predict --checkpoint checkpoint.pt --support-image A.nii.gz --support-label A_label.nii.gz \
        --scans FOLDER --out RESULTS --overlays

Scans are NIfTI files, folders of them, folders of one DICOM series each, or folders of such folders. RESULTS receives
<name>_segmentation.nii.gz on each scan's own grid, volumes.csv, and with --overlays a picture per scan. What cannot be
read is reported at the end, with exit code 1; the other scans are done all the same. Research software, not a medical
device. See docs/predict_own_scan.md.
"""

import argparse
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dataloaders.io.nifti import write_nifti
from dataloaders.io.volumes import read_volume
from dataloaders.samples import Volume
from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import apply_window
from models.prediction.fewshot import FewShotPredictor as FewShotPredictor
from util.cli import run_main
from util.errors import ConfigError, DataError, UserError
from util.files import write_text
from util.results.overlays import save_overlays
from util.results.scores import csv_text

logger = logging.getLogger(__name__)

NIFTI_SUFFIXES = (".nii", ".nii.gz")
RESULT_SUFFIX = "_segmentation.nii.gz"
COLUMNS = ("scan", "label", "structure", "voxels", "volume_ml")


def find_scans(path: Path) -> list[Path]:
    """The scans at a path, in the order of their names: NIfTI files, and folders that hold a DICOM series.

    A folder with NIfTI files stands for these, but for segmentations made here. Any other is a DICOM series if it holds
    `*.dcm`, or no folders but files named as scanners do, and stands for what its folders stand for.

    Raises:
        DataError: there are none.
    """
    scans = [path] if path.is_file() else _scans_below(path)
    if not scans:
        raise DataError(f"{path}: no scan found; expected a NIfTI file, or a folder of NIfTI or of DICOM files.")
    return scans


def _scans_below(folder: Path) -> list[Path]:
    entries = sorted(entry for entry in folder.glob("*") if not entry.name.startswith("."))
    files, folders = [each for each in entries if each.is_file()], [each for each in entries if each.is_dir()]
    scans = [file for file in files if file.name.lower().endswith(NIFTI_SUFFIXES)]
    if scans:
        return [scan for scan in scans if not scan.name.endswith(RESULT_SUFFIX)]
    suffixes = {file.suffix.lower() for file in files}
    is_series = ".dcm" in suffixes or (not folders and any(re.fullmatch(r"(\.ima|\.\d+)?", each) for each in suffixes))
    return [folder] * is_series + [scan for each in folders for scan in _scans_below(each)]


def name_scans(scans: Iterable[Path]) -> dict[str, Path]:
    """A name for each scan, listed once: that of its file or folder, with the folders above it where names repeat.

    Raises:
        DataError: names cannot be told apart.
    """
    unique = list(dict.fromkeys(Path(os.path.abspath(scan)) for scan in scans))  # noqa: PTH100 - links keep their names
    parts = [(*scan.parts[1:-1], _stem(scan)) for scan in unique]
    for length in range(1, max(map(len, parts)) + 1):
        named = {"_".join(part[-length:]): scan for part, scan in zip(parts, unique, strict=True)}
        if len(named) == len(unique):
            return named
    repeated = next(scan for scan, part in zip(unique, parts, strict=True) if parts.count(part) > 1)
    raise DataError(f"{repeated}: another scan has the same name but for its suffix; move one of them elsewhere.")


def _stem(scan: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", scan.name, flags=re.IGNORECASE)


def volumes(name: str, label_map: Volume, structures: Mapping[str, int]) -> list[dict[str, Any]]:
    """A record with `COLUMNS` for each structure; a voxel's volume is the affine's determinant."""
    voxel_ml = abs(np.linalg.det(label_map.affine[:3, :3])) / 1000
    counts = {structure: int((label_map.array == value).sum()) for structure, value in structures.items()}
    return [
        dict(zip(COLUMNS, (name, structures[each], each, count, round(count * voxel_ml, 4)), strict=True))
        for each, count in counts.items()
    ]


def segment_all(predictor: FewShotPredictor, scans: Mapping[str, Path], out: Path, overlays: bool) -> dict[str, str]:
    """Segments scan after scan and writes what belongs to it; returns name -> message of those that failed."""
    records: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    write_text(out / "volumes.csv", csv_text(COLUMNS, records))  # a folder that cannot be written to shows at once
    for name, path in tqdm(scans.items(), desc="scans", disable=None):
        try:
            image = read_volume(path)
            label_map = predictor.predict(image, name)
            write_nifti(out / f"{name}{RESULT_SUFFIX}", label_map)
            if overlays:
                _draw(out / f"{name}_overlay.png", name, image, label_map, predictor)
        except UserError as error:
            failures[name] = str(error) if str(path) in str(error) else f"{path}: {error}"
            continue
        records += volumes(name, label_map, predictor.structures)
        write_text(out / "volumes.csv", csv_text(COLUMNS, records))
    return failures


def _draw(path: Path, name: str, image: Volume, label_map: Volume, predictor: FewShotPredictor) -> None:
    window = predictor.parameters.window_hu
    shown = image.array if window is None else apply_window(image.array, window)
    organs = {value: structure for structure, value in predictor.structures.items()}
    save_overlays(path, shown, None, {"Prediction": label_map.array}, scan=name, organs=organs, affine=image.affine)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and segments; returns 1 if a scan failed, else 0."""
    given = _parser().parse_args(arguments)
    scans = name_scans(scan for path in given.scans for scan in find_scans(path))
    classes = dict(given.classes or ())
    if len(classes) < len(given.classes or ()):
        raise ConfigError("--classes: a name or value was given twice; expected different ones.")
    if not given.overwrite:
        _refuse_existing(given.out, scans)
    predictor = FewShotPredictor.from_checkpoint(
        given.checkpoint, given.weights, given.device, n_parts=given.parts, dataset=given.dataset,
        modelname=given.modelname, normalisation=Normalisation(*given.mean_std) if given.mean_std else None,
    )  # fmt: skip
    image, label = read_volume(given.support_image), read_volume(given.support_label)
    try:
        predictor.set_support(image, label, classes or None)
    except DataError as error:
        raise DataError(f"{given.support_image}, {given.support_label}: {error}") from error
    failures = segment_all(predictor, scans, given.out, given.overlays)
    logger.info("%d of %d scans segmented, in %s", len(scans) - len(failures), len(scans), given.out)
    for message in failures.values():
        logger.error("not segmented: %s", message)
    return 1 if failures else 0


def _refuse_existing(out: Path, scans: Iterable[str]) -> None:
    names = [f"{name}{end}" for name in scans for end in (RESULT_SUFFIX, "_overlay.png")]
    existing = [path for path in (out / name for name in ("volumes.csv", *names)) if path.exists()]
    if existing:
        raise UserError(
            f"{existing[0]}: exists already ({len(existing)} such results). Name another folder with --out, or "
            "replace them with --overwrite."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="trained network")
    add("--support-image", type=Path, required=True, help="annotated scan: NIfTI file or folder of DICOM files")
    add("--support-label", type=Path, required=True, help="its label map: NIfTI, same grid, 0 is the background")
    add("--scans", type=Path, nargs="+", required=True, metavar="FILE_OR_FOLDER", help="what to segment")
    add("--out", type=Path, required=True, help="folder for the results")
    add("--classes", type=_class, nargs="+", metavar="[NAME=]VALUE", help="label values to segment (default: all)")
    add("--weights", choices=("last", "ema"), default="last", help="ema: the averaged ones (default: last)")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add("--parts", type=int, default=3, help="annotated slices used per structure; odd (default: 3)")
    add("--overlays", action="store_true", help="also draw a picture per scan")
    add("--overwrite", action="store_true", help="replace earlier results")
    unsaid = parser.add_argument_group("where the checkpoint does not say (released by others)")
    unsaid.add_argument("--dataset", help="what it was trained on: chaost2 or sabs")
    unsaid.add_argument("--modelname", help="its encoder, such as dlfcn_res101")
    unsaid.add_argument("--mean-std", type=float, nargs=2, metavar=("MEAN", "STD"), help="of its training scans; CT")
    return parser


def _class(text: str) -> tuple[str, int]:
    """`liver=6` or `6`."""
    name, _, value = text.rpartition("=")
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected VALUE or NAME=VALUE with a whole number, e.g. liver=6")
    return name or f"label {int(value)}", int(value)


if __name__ == "__main__":
    run_main(main)
