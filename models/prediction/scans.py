"""Segments folders of scans with a few-shot predictor: finds scans, writes label maps, volumes and overlays."""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from dataloaders.io.nifti import is_nifti, nifti_stem, write_nifti
from dataloaders.io.volumes import read_volume
from dataloaders.samples import Volume
from dataloaders.scans.plausibility import label_map_doubt
from dataloaders.scans.preprocess import apply_window
from models.prediction.batch import Record, name_files, process_each, without_label_maps
from models.prediction.fewshot import FewShotPredictor
from util.errors import DataError
from util.results.overlays import save_overlays

TABLE = "volumes.csv"
SEGMENTATION = "_segmentation.nii.gz"
OVERLAY = "_overlay.png"
COLUMNS = ("scan", "label", "structure", "voxels", "volume_ml")


def find_scans(path: Path) -> list[Path]:
    """The scans at a path, in the order of their names: NIfTI files or pairs, and folders that hold a DICOM series.

    Of a folder with NIfTI files, these are the scans, except for segmentations made here and label maps. Another
    folder is a DICOM series if it holds `*.dcm`, or no folders but files named as scanners do; folders in it are
    searched in any case.

    Raises:
        DataError: there are none.
    """
    scans = [path] if path.is_file() else without_label_maps(_scans_below(path), path, nifti_stem)
    if not scans:
        raise DataError(f"{path}: no scan found; expected a NIfTI file, or a folder of NIfTI or of DICOM files.")
    return scans


def _scans_below(folder: Path) -> list[Path]:
    entries = sorted(entry for entry in folder.glob("*") if not entry.name.startswith("."))
    files, folders = [each for each in entries if each.is_file()], [each for each in entries if each.is_dir()]
    scans = [file for file in files if is_nifti(file)]
    if scans:
        return [scan for scan in scans if not scan.name.endswith(SEGMENTATION)]
    suffixes = {file.suffix.lower() for file in files}
    is_series = ".dcm" in suffixes or (not folders and any(re.fullmatch(r"(\.ima|\.\d+)?", each) for each in suffixes))
    return [folder] * is_series + [scan for each in folders for scan in _scans_below(each)]


def name_scans(scans: Iterable[Path]) -> dict[str, Path]:
    """Name -> scan; see `name_files`."""
    return name_files(scans, nifti_stem)


def result_names(scans: Iterable[str]) -> list[str]:
    """Names of the files that are written for these scans, whatever the options."""
    return [TABLE, *(f"{name}{end}" for name in scans for end in (SEGMENTATION, OVERLAY))]


def volumes(name: str, label_map: Volume, structures: Mapping[str, int]) -> list[Record]:
    """A record with `COLUMNS` for each structure; a voxel's volume is the affine's determinant."""
    voxel_ml = abs(np.linalg.det(label_map.affine[:3, :3])) / 1000
    counts = {structure: int((label_map.array == value).sum()) for structure, value in structures.items()}
    return [
        dict(zip(COLUMNS, (name, structures[each], each, count, round(count * voxel_ml, 4)), strict=True))
        for each, count in counts.items()
    ]


def segment_scans(predictor: FewShotPredictor, scans: Mapping[str, Path], out: Path, overlays: bool) -> dict[str, str]:
    """Segments scan after scan and writes the results; returns name -> message of those that failed."""
    return process_each(scans, partial(_segment, predictor, out, overlays), out / TABLE, COLUMNS, "scans")


def _segment(predictor: FewShotPredictor, out: Path, overlays: bool, name: str, path: Path) -> list[Record]:
    image = read_volume(path)
    doubt = label_map_doubt(image.array)
    if doubt:
        raise DataError(
            f"{path}: {doubt}. Move it elsewhere. A noise-free phantom can be segmented in Python, with "
            "FewShotPredictor.predict."
        )
    label_map = predictor.predict(image, name)
    write_nifti(out / f"{name}{SEGMENTATION}", label_map)
    if overlays:
        _draw(out / f"{name}{OVERLAY}", name, image, label_map, predictor)
    return volumes(name, label_map, predictor.structures)


def _draw(path: Path, name: str, image: Volume, label_map: Volume, predictor: FewShotPredictor) -> None:
    window = predictor.parameters.window_hu
    shown = image.array if window is None else apply_window(image.array, window)
    organs = {value: structure for structure, value in predictor.structures.items()}
    save_overlays(path, shown, None, {"Prediction": label_map.array}, scan=name, organs=organs, affine=image.affine)
