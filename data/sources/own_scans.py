"""A user's own scans: NIfTI files or DICOM folders, listed in the table that the description names."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from data.sources.own_table import ANNOTATOR, MASK, TableRow, read_table, table_error
from data.sources.raw_scans import Annotation, RawScan, ScanSource
from dataloaders.description import DatasetSpec
from dataloaders.io.geometry import on_grid_of
from dataloaders.io.volumes import read_volume
from dataloaders.samples import Origin, Volume
from dataloaders.scans.labels import combine_masks, majority_label, to_prepared_values, whole_values
from util.errors import DataError
from util.inventory import first_names

MAJORITY = "majority"  # of the annotators, see `DatasetSpec.annotators`

log = logging.getLogger(__name__)


def find_scans(table: Path, spec: DatasetSpec) -> list[RawScan]:
    """Lists the scans of the table, in natural order of their ids; lines with split `unused` are left out.

    Raises:
        DataError: see `read_table`; or a split, a fold or a patient that is impossible.
    """
    rows = read_table(table, spec)
    for row in rows:
        _check_row(table, row, spec)
    _check_annotator(table, rows, spec)
    unused = [row.id for row in rows if row.cells.get("split") == "unused"]
    if unused:
        log.info("%s: scans %s are not used (column split)", table, first_names(unused))
    scans = [_scan(row, spec) for row in rows if row.id not in unused]
    _check_folds(table, [row for row in rows if row.id not in unused], scans, spec)
    return scans


def _scan(row: TableRow, spec: DatasetSpec) -> RawScan:
    fold = row.cells.get("fold")
    files = _files_of_annotators(row)
    chosen = [files[name] for name in files if spec.annotators in (MAJORITY, name)]
    return RawScan(
        id=row.id,
        image=row.image,
        annotations=tuple(
            Annotation(each.get("label"), {name.removeprefix(MASK): each[name] for name in each if name != "label"})
            for each in chosen
        ),
        origin=Origin.read(row.cells),
        fold=None if fold is None else int(fold),
    )


def _files_of_annotators(row: TableRow) -> dict[str, dict[str, Path]]:
    """Annotator -> column without the annotator -> file; columns without an annotator belong to the annotator ""."""
    files: dict[str, dict[str, Path]] = {}
    for column, path in row.paths.items():
        if column != "image":
            name, _, annotator = column.partition(ANNOTATOR)
            files.setdefault(annotator, {})[name] = path
    return files


def _check_annotator(table: Path, rows: Sequence[TableRow], spec: DatasetSpec) -> None:
    known = {name for row in rows for name in _files_of_annotators(row)}
    if spec.annotators not in (MAJORITY, *known):
        found = ", ".join(sorted(known - {""})) or f"no column with a name such as label{ANNOTATOR}anna"
        raise DataError(
            f"{table}: no label by the annotator {spec.annotators!r} of the description; found {found}. Correct "
            f"`annotators`, or set it to {MAJORITY!r}."
        )


def _check_row(table: Path, row: TableRow, spec: DatasetSpec) -> None:
    if row.cells.get("split", "unused") != "unused":
        text = f"{row.cells['split']!r}; expected unused or nothing: scans are divided by the column fold"
        raise table_error(table, row, "split", text)
    fold = row.cells.get("fold", "0")
    if not (fold.isascii() and fold.isdecimal() and int(fold) < spec.n_folds):
        text = f"{fold!r}; expected 0 to {spec.n_folds - 1} (`folds.number` of the description)"
        raise table_error(table, row, "fold", text)


def _check_folds(table: Path, rows: Sequence[TableRow], scans: Sequence[RawScan], spec: DatasetSpec) -> None:
    folds = {scan.fold for scan in scans if scan.fold is not None}
    missing = sorted(set(range(spec.n_folds)) - folds)
    if folds and missing:
        raise DataError(
            f"{table}: column fold has {', '.join(map(str, sorted(folds)))}, not {', '.join(map(str, missing))}; "
            f"expected every fold from 0 to {spec.n_folds - 1}. Correct it, or `folds.number` of the description."
        )
    found: dict[str, set[int | None]] = defaultdict(set)
    for row, scan in zip(rows, scans, strict=True):
        patient = scan.origin.patient
        if scan.is_labelled and patient:
            found[patient].add(scan.fold)
            if len(found[patient]) > 1:
                text = f"patient {patient} is in another fold, too; expected one fold for all scans of a patient"
                raise table_error(table, row, "fold", text)


def read_scan(scan: RawScan, spec: DatasetSpec) -> tuple[Volume, Volume | None]:
    """Reads a scan and its labels as prepared class values (uint8).

    Returns:
        The image as it is stored, and its label map, whose axes count in the directions of `spec.grid.axis_codes`;
        None where the scan has no label.

    Raises:
        DataError: a file is damaged, or the labels have another grid than the image or a value that is no class.
    """
    image = read_volume(scan.image)
    labels = [_read_annotation(annotation, scan, image, spec) for annotation in scan.annotations]
    if not labels:
        return image, None
    return image, Volume(majority_label([label.array for label in labels], spec), labels[0].affine)


def _read_annotation(annotation: Annotation, scan: RawScan, image: Volume, spec: DatasetSpec) -> Volume:
    """The prepared class values of one annotator."""
    if annotation.label is not None:
        label = _read_label(annotation.label, scan, image, spec)
        try:
            return Volume(to_prepared_values(label.array, spec), label.affine)
        except DataError as error:
            raise DataError(f"{annotation.label}: {error}") from error
    masks = {name: _read_label(path, scan, image, spec) for name, path in annotation.masks.items()}
    array, n_shared = combine_masks({name: mask.array for name, mask in masks.items()}, spec)
    if n_shared:
        log.warning("scan %s: %d voxels are in several masks; each gets the last class of these", scan.id, n_shared)
    absent = [name for name in spec.class_names[1:] if name not in masks]
    if absent:
        log.warning("scan %s: no mask of %s, which counts as not in the scan", scan.id, ", ".join(absent))
    return Volume(array, next(iter(masks.values())).affine)


def _read_label(path: Path, scan: RawScan, image: Volume, spec: DatasetSpec) -> Volume:
    try:
        label = on_grid_of(image, read_volume(path), spec.grid.axis_codes, scan.image.name)
        return Volume(whole_values(label.array), label.affine)
    except DataError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path}: {error}") from error


SOURCE = ScanSource(find_scans, read_scan)
