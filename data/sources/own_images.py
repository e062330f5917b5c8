"""Users' own images, as a table of files lists them: any size, depth and colour, masks in three forms, annotators.

The columns are those of docs/own_data.md: id, image, patient, split, and either `label` (one map of grey or colour
codes) or `mask:<class>` (one file per structure); `label@<name>` and `mask:<class>@<name>` for further annotators.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from data.prepare.splits import split_by_fractions
from data.sources.label_codes import read_label_map
from data.sources.own_table import ANNOTATOR, MASK, TableRow, read_table, table_error
from data.sources.raw_images import ImageSource, Masks, RawImage
from dataloaders.description import DatasetSpec
from dataloaders.images.folder import SPLITS
from dataloaders.images.preprocess import read_image
from dataloaders.io import pictures
from dataloaders.samples import Origin
from util.errors import ConfigError, DataError
from util.files import short_digest

MAJORITY = "majority"
NAMED_AT_MOST = 5  # in warnings and messages

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskColumn:
    """A column with mask files: of all structures (label maps), or of one; by one annotator."""

    name: str
    structure: str  # empty: all, a label map
    annotator: str  # empty: the first, without a name

    @classmethod
    def parse(cls, name: str) -> "MaskColumn":
        """The meaning of a column's name."""
        kind, _, annotator = name.partition(ANNOTATOR)
        return cls(name, kind.removeprefix(MASK) if kind.startswith(MASK) else "", annotator)


def own_source(spec: DatasetSpec) -> ImageSource:
    """How the images of a description with a table of files are found, read and split.

    Raises:
        ConfigError: a key of the description that does not suit images.
    """
    if any(each.colour for each in spec.classes):
        lacking = [each.name for each in spec.classes if not each.colour]
        if lacking:
            raise ConfigError(f"classes: no colour of {', '.join(lacking)}; expected one for every class, or for none.")
    keys = ("channels", "background_colour", "annotators", "intensity")
    content = spec.to_dict()
    classes = [(each.name, each.value, each.colour) for each in spec.classes]
    field = {"field": spec.grid.field} if spec.grid.field != "none" else {}
    shaping = {**{key: content[key] for key in keys}, "classes": classes, "aspect": spec.grid.aspect, **field}
    return ImageSource(
        find=partial(find_images, spec=spec),
        read=partial(read_image, spec=spec),
        split_rules={"table": split_by_table, "fractions": partial(split_by_fractions, rule=spec.split)},
        read_masks=partial(read_masks, spec=spec),
        settings=short_digest(shaping),
    )


def find_images(path: Path, spec: DatasetSpec) -> list[RawImage]:
    """Finds the images of a table and their masks; images without any mask are named and left out.

    Args:
        path: the table.
        spec: the data set.

    Returns:
        By ascending id.

    Raises:
        DataError: the table is damaged, names a missing file, or its columns or splits do not suit the description.
    """
    rows = sorted(read_table(path, spec), key=lambda row: row.id)
    columns = _mask_columns(path, rows, spec)
    _check_images(path, rows)
    _check_splits(path, rows)
    images = [_raw_image(row, columns, spec) for row in rows]
    labelled = [image for image in images if image.n_annotators]
    if not labelled:
        raise DataError(f"{path}: no image with a mask; expected files in the columns label or mask:<class>.")
    unlabelled = [image.id for image in images if not image.n_annotators]
    if unlabelled:
        log.warning("%s: %d images have no mask and are left out: %s", path, len(unlabelled), _first(unlabelled))
    for name in (each.name for each in spec.classes):
        absent = [image.id for image in labelled if not image.masks[name]]
        if absent:
            text = "%s: %d images have no file of %s, which is taken as absent: %s"
            log.warning(text, path, len(absent), name, _first(absent))
    bits = 16 if any(pictures.is_deep(image.image) for image in labelled) else 8
    return [replace(image, bits=bits) for image in labelled]


def _mask_columns(path: Path, rows: Sequence[TableRow], spec: DatasetSpec) -> list[MaskColumn]:
    """The columns with masks that are used: of all annotators, or of the chosen one."""
    names = list(dict.fromkeys(name for row in rows for name in row.paths if name != "image"))
    columns = [MaskColumn.parse(name) for name in names]
    single = {column.structure for column in columns if column.structure}
    missing = [each.name for each in spec.classes if single and each.name not in single]
    if missing:
        raise DataError(
            f"{path}: no file in a column {MASK}{missing[0]}; expected one column {MASK}<class> for each of "
            f"{', '.join(each.name for each in spec.classes)}. Add it, or remove the class from the description."
        )
    if spec.annotators == MAJORITY:
        return columns
    chosen = [column for column in columns if column.annotator == spec.annotators]
    if not chosen:
        known = sorted({column.annotator for column in columns if column.annotator})
        found = ", ".join(known) or f"no column with a name such as label{ANNOTATOR}anna"
        raise DataError(
            f"{path}: no mask by the annotator {spec.annotators!r} of the description; found {found}. Correct "
            f"`annotators`, or set it to {MAJORITY!r}."
        )
    return chosen


def _check_images(path: Path, rows: Sequence[TableRow]) -> None:
    first: dict[Path, TableRow] = {}
    for row in rows:
        if row.image.suffix.lower() not in pictures.SUFFIXES:
            text = f"{row.image.name}; expected a picture ({', '.join(pictures.SUFFIXES)}). Convert it"
            raise table_error(path, row, "image", text)
        other = first.setdefault(row.image.resolve(), row)
        if other is not row:
            text = f"{row.image.name} is also the image of {other.id!r} (line {other.line}); expected another file"
            raise table_error(path, row, "image", text)


def _check_splits(path: Path, rows: Sequence[TableRow]) -> None:
    given = [row for row in rows if "split" in row.cells]
    for row in given:
        if row.cells["split"] not in SPLITS:
            text = f"{row.cells['split']!r}; expected one of {', '.join(SPLITS)}, or nothing in all lines"
            raise table_error(path, row, "split", text)
    if given and len(given) < len(rows):
        row = next(row for row in rows if "split" not in row.cells)
        text = f"empty, but given in {len(given)} other lines; expected one of {', '.join(SPLITS)} in all lines or none"
        raise table_error(path, row, "split", text)


def _raw_image(row: TableRow, columns: Sequence[MaskColumn], spec: DatasetSpec) -> RawImage:
    files = [(column, row.paths[column.name]) for column in columns if column.name in row.paths]
    masks = {
        each.name: tuple(file for column, file in files if column.structure in ("", each.name)) for each in spec.classes
    }
    return RawImage(
        id=row.id,
        image=row.image,
        masks=masks,
        part=row.cells.get("split", ""),
        origin=Origin.read({"patient": row.id} | row.cells),
        n_annotators=len({column.annotator for column, _ in files}),
        has_label_maps=any(not column.structure for column, _ in files),
    )


def _first(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED_AT_MOST]) + (" ..." if len(ids) > NAMED_AT_MOST else "")


def split_by_table(images: Sequence[RawImage]) -> dict[str, str]:
    """Splits as the column `split` says.

    Raises:
        DataError: the column is empty.
    """
    if not all(image.part for image in images):
        raise DataError("the table of files has no split; expected one in every line, or --split fractions.")
    return {image.id: image.part for image in images}


def read_masks(raw: RawImage, shape: tuple[int, int], spec: DatasetSpec) -> Masks:
    """Reads the masks of an image: the majority of its annotators (ties: background).

    Args:
        raw: the image.
        shape: rows and columns of the upright picture.
        spec: the data set.

    Raises:
        DataError: a mask of another size, with unknown values or colours, or damaged.
    """
    names = [each.name for each in spec.classes]
    if raw.has_label_maps and not _is_binary(spec):
        maps = [_fit(read_label_map(file, spec), file, raw, shape) for file in raw.masks[names[0]]]
        return {
            name: (_majority([each == value for each in maps], raw, shape), 0)
            for value, name in enumerate(names, start=1)
        }
    found = {}
    for name in names:
        read = [pictures.read_binary_mask(file) for file in raw.masks[name]]
        masks = [_fit(mask, file, raw, shape) for (mask, _), file in zip(read, raw.masks[name], strict=True)]
        found[name] = _majority(masks, raw, shape), sum(count for _, count in read)
    return found


def _is_binary(spec: DatasetSpec) -> bool:
    """Whether label maps are masks: of a single class without a value or a colour of its own."""
    return len(spec.classes) == 1 and spec.classes[0].value is None and spec.classes[0].colour is None


def _majority(masks: Sequence[np.ndarray], raw: RawImage, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: marked by more than half of the image's annotators; those without a file mark nothing."""
    votes = np.sum(masks, axis=0) if masks else np.zeros(shape, int)
    return 2 * votes > raw.n_annotators


def _fit(array: np.ndarray, file: Path, raw: RawImage, shape: tuple[int, int]) -> np.ndarray:
    """The mask on the grid of the upright picture; the picture's EXIF orientation is applied where it was not.

    Raises:
        DataError: another size.
    """
    array = pictures.fit_to_picture(array, shape, raw.image)
    if array.shape == tuple(shape):
        return array
    note = pictures.turned_note(raw.image)
    raise DataError(
        f"{file}: {array.shape[0]} x {array.shape[1]} pixels (rows x columns), but {raw.image.name} has "
        f"{shape[0]} x {shape[1]}{note}; expected the same. Export the mask at the size of its "
        "image."
    )
