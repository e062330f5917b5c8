"""Segments folders of scans: writes label maps, volumes and overlays."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dataloaders.io.nifti import nifti_stem, write_frames
from dataloaders.io.volumes import read_cine, read_series, read_volume
from dataloaders.samples import Volume
from dataloaders.scans.plausibility import label_map_doubt
from dataloaders.scans.preprocess import apply_window
from models.prediction.batch import TRUST, Record, name_files, process_each, remove_files, trust
from models.prediction.dicom_seg import Source, source_of, write_dicom_seg
from models.prediction.fewshot import FewShotPredictor
from models.prediction.label_tables import write_label_tables
from models.prediction.scan_search import DICOM_SEG, OVERLAY, PROBABILITY, RESULTS, SEGMENTATION, TABLE
from models.prediction.segmenter import ScanSegmentation
from models.prediction.sources import SourcesPredictor
from util.errors import DataError
from util.items import Failures, catching
from util.results.overlays import save_overlays
from util.results.tables import markdown_header, markdown_row

logger = logging.getLogger(__name__)

COLUMNS = ("scan", "label", "structure", "voxels", "volume_ml", *TRUST)
FRAME_COLUMNS = ("scan", "frame", *COLUMNS[1:])  # where scans may have several frames
MOST_SHOWN = 20  # scans in the summary

Predictor = FewShotPredictor | SourcesPredictor


def name_scans(scans: Iterable[Path]) -> dict[str, Path]:
    """Name -> scan; see `name_files`."""
    return name_files(scans, nifti_stem)


def result_names(scans: Iterable[str]) -> list[str]:
    """Names of the files that are written for these scans, whatever the options."""
    return [f"{name}{end}" for name in scans for end in (SEGMENTATION, *RESULTS)]


def volumes(
    name: str, found: ScanSegmentation, structures: Mapping[str, int], limit: float | None = None
) -> list[Record]:
    """A record with `COLUMNS` for each structure; `limit`: see `trust`."""
    voxel_ml = abs(np.linalg.det(found.label_map.affine[:3, :3])) / 1000
    records = []
    for structure, value in structures.items():
        count = int((found.label_map.array == value).sum())
        own = dict(zip(COLUMNS, (name, value, structure, count, round(count * voxel_ml, 4)), strict=False))
        records.append(own | trust(found.confidence[structure], limit))
    return records


def summary(records: Sequence[Record]) -> str:
    """A table of scans with the volume of each structure and, in brackets, its confidence.

    Args:
        records: of `volumes`.
    """
    cells: dict[str, dict[str, str]] = {}
    for record in records:
        found = f"{record['volume_ml']:.4g}" if record["voxels"] else "not there"
        confidence = f" ({record['confidence']:.2f})" if record["confidence"] != "" else ""
        cells.setdefault(record["scan"], {})[record["structure"]] = found + confidence
    names = list(next(iter(cells.values()), {}))
    lines = [markdown_header(["scan", *(f"{name}, ml (confidence)" for name in names)], 1)]
    lines += [markdown_row([scan, *found.values()]) for scan, found in list(cells.items())[:MOST_SHOWN]]
    more = len(cells) - MOST_SHOWN
    return "\n".join([*lines, f"... and {more} more in {TABLE}"] if more > 0 else lines)


def frame_volumes(
    name: str, frames: Sequence[ScanSegmentation], structures: Mapping[str, int], limit: float | None = None
) -> list[Record]:
    """A record with `FRAME_COLUMNS` for each frame and structure; the frame of a scan that has but one is empty."""
    return [
        record | {"frame": number if len(frames) > 1 else ""}
        for number, found in enumerate(frames)
        for record in volumes(name, found, structures, limit)
    ]


@dataclass(frozen=True)
class Further:
    """What is read of folders, and what is written besides label maps and the table.

    Attributes:
        pictures: None: no overlays; else name -> reason of those that could not be drawn, which cost nothing else.
        probabilities: whether to write a file of each structure's probability.
        dicom_seg: None: no DICOM segmentations; else name -> reason of those that could not be written, likewise.
        removed: receives the names of overlays, probabilities and DICOM segmentations of an earlier run that this one
            does not replace: they are removed, as they belong to other label maps. None: they stay.
        limit: confidence below which a structure is to be looked at; None: not known.
        series: SeriesNumber of what is read of folders with several DICOM series.
    """

    pictures: Failures | None = None
    probabilities: bool = False
    dicom_seg: Failures | None = None
    removed: list[str] | None = None
    limit: float | None = None
    series: str = ""


def segment_scans(
    predictor: Predictor,
    scans: Mapping[str, Path],
    out: Path,
    failures: Failures,
    further: Further = Further(),
    found: list[Record] | None = None,
) -> int:
    """Segments scan after scan and writes the results; returns the number of those that succeeded.

    Args:
        predictor: a few-shot one with a support set.
        scans: name -> file or folder.
        out: folder of the results.
        failures: name -> reason of the scans that could not be segmented.
        further: what is written besides.
        found: receives the records of this run; None: not needed.
    """
    columns = FRAME_COLUMNS if isinstance(predictor, SourcesPredictor) else COLUMNS
    files = [name for name, path in scans.items() if not path.is_dir()]
    if further.dicom_seg is not None and files:
        logger.warning("no DICOM SEG of %d scan(s) that are no DICOM series, such as %s", len(files), files[0])
    work = partial(_segment, predictor, out, further)
    n_done = process_each(scans, work, out / TABLE, columns, "scans", failures, found)
    with catching(failures, "tables of label values", out):
        write_label_tables(out, predictor.structures)
    return n_done


def _segment(predictor: Predictor, out: Path, further: Further, name: str, path: Path) -> list[Record]:
    frames, source = _read(predictor, path, further.dicom_seg is not None, further.series)
    doubt = label_map_doubt(frames[0].array)
    if doubt:
        raise DataError(
            f"{path}: {doubt}. Move it elsewhere. A noise-free phantom can be segmented in Python, with "
            f"{type(predictor).__name__}.predict."
        )
    if isinstance(predictor, SourcesPredictor):
        found = predictor.segment(frames, name, with_probabilities=further.probabilities)
        records = frame_volumes(name, found, predictor.structures, further.limit)
    else:
        found = [predictor.segment(frames[0], name, with_probabilities=further.probabilities)]
        records = volumes(name, found[0], predictor.structures, further.limit)
    label_maps = [each.label_map for each in found]
    write_frames(out / f"{name}{SEGMENTATION}", label_maps, path)
    written = set()
    for structure in found[0].probabilities:
        end = f"_{structure}{PROBABILITY}"
        write_frames(out / f"{name}{end}", [rounded(each.probabilities[structure]) for each in found], path)
        written.add(end)
    if further.pictures is not None:
        with catching(further.pictures, name, path):
            title = name if len(frames) == 1 else f"{name}, frame 0 of {len(frames)}"
            _draw(out / f"{name}{OVERLAY}", title, frames[0], label_maps[0], predictor)
            written.add(OVERLAY)
    if further.dicom_seg is not None and source is not None:
        with catching(further.dicom_seg, name, path):
            method = type(predictor.segmenter.method).__name__
            write_dicom_seg(out / f"{name}{DICOM_SEG}", label_maps[0].array, predictor.structures, source, method)
            written.add(DICOM_SEG)
    if further.removed is not None:
        ends = (*RESULTS, *(f"_{structure}{PROBABILITY}" for structure in predictor.structures))
        further.removed.extend(remove_files(out, [f"{name}{end}" for end in ends if end not in written]))
    return records


def rounded(probability: Volume) -> Volume:
    """In steps of 0.001, which compress well."""
    return Volume(probability.array.round(3), probability.affine, probability.stored)


def _read(predictor: Predictor, path: Path, with_source: bool, number: str) -> tuple[list[Volume], Source | None]:
    """The frames of a scan; of a DICOM series also what a segmentation of it refers to, if that is wanted."""
    if with_source and path.is_dir():
        series = read_series(path, number)
        return [series.volume], source_of(series.slices)
    return read_cine(path, number) if isinstance(predictor, SourcesPredictor) else [read_volume(path, number)], None


def _draw(path: Path, name: str, image: Volume, label_map: Volume, predictor: Predictor) -> None:
    window = predictor.parameters.window_hu
    shown = image.array if window is None else apply_window(image.array, window)
    organs = {value: structure for structure, value in predictor.structures.items()}
    save_overlays(path, shown, None, {"Prediction": label_map.array}, scan=name, organs=organs, affine=image.affine)
