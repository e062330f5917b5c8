"""The page of a segmentation: what was found in every scan or image, and which masks to look at first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from util.csv_files import read_csv
from util.errors import DataError
from util.files import write_text
from util.ids import natural_key
from util.results.metrics import CONFIDENCE
from util.results.report.images import Picture, encode_picture
from util.results.report.page import render
from util.results.report.strip import Plot, make_plot

FILE_NAME = "segmentations.html"
MOST_PICTURES = 20  # in a page; further ones are in the folder
MOST_BYTES = 200_000  # of the text of a picture
# Column of the names -> columns of the amount and of the count; unit in the page, and its number in one of the table's.
UNITS = {
    "scan": ("volume_ml", "voxels", "ml", 1.0),
    "image": ("fraction_of_image", "pixels", "% of the image", 100.0),
}
AGAIN = "Run the segmentation again."


@dataclass(frozen=True)
class Mask:
    """A structure in a scan or image.

    Attributes:
        amount: volume in ml, or share of the image in per cent; None: there is no voxel of it.
        confidence: 0 to 1; NaN: nothing was found.
        is_doubtful: whether it is to be looked at.
    """

    amount: float | None
    confidence: float
    is_doubtful: bool


@dataclass(frozen=True)
class Item:
    """A scan, one of its frames, or an image.

    Attributes:
        name: with the frame.
        file: name of the scan or image, by which its overlay is found.
        anchor: id of the table's row in the page.
        masks: structure -> what was found.
    """

    name: str
    file: str
    anchor: str
    masks: dict[str, Mask] = field(default_factory=dict)

    @property
    def is_doubtful(self) -> bool:
        """Whether one of the masks is to be looked at."""
        return any(mask.is_doubtful for mask in self.masks.values())

    @property
    def lowest(self) -> float:
        """The lowest confidence; 2 where nothing was found."""
        return min((mask.confidence for mask in self.masks.values() if not math.isnan(mask.confidence)), default=2.0)


@dataclass(frozen=True)
class About:
    """What is told of a segmentation besides its table.

    Attributes:
        method: in words.
        command: the command line.
        failed: scan or image -> reason.
        limit: confidence below which masks are to be looked at; None: there is none.
    """

    method: str
    command: str
    failed: Mapping[str, str]
    limit: float | None = None


def save_prediction_page(table: Path, overlay_end: str, about: About) -> Path:
    """Writes the page of a folder of results; returns its path.

    Args:
        table: volumes.csv or areas.csv, with all results of the folder.
        overlay_end: of the names of overlays, after that of the scan or image.
        about: what else is told.

    Raises:
        DataError: the table cannot be used.
    """
    items, unit, what = read_items(table)
    pictures, warnings = _pictures(items, table.parent, overlay_end)
    structures = list(dict.fromkeys(name for item in items for name in item.masks))
    page = table.parent / FILE_NAME
    doubtful = [(item, name) for item in items for name, mask in item.masks.items() if mask.is_doubtful]
    write_text(
        page,
        render(
            "prediction.html.j2",
            about=about,
            items=items,
            structures=structures,
            doubtful=doubtful,
            pictures=pictures,
            plot=confidence_strips(items, structures),
            warnings=warnings,
            unit=unit,
            what=what,
        ),
    )
    return page


def read_items(table: Path) -> tuple[list[Item], str, str]:
    """The items of a table by name, the unit of their amounts, and what they are: "scan" or "image".

    Raises:
        DataError: it cannot be read, or has other columns.
    """
    rows = read_csv(table, ("structure", CONFIDENCE, "review"), AGAIN)
    what = next((name for name in UNITS if rows and name in rows[0]), "")
    if not what:
        raise DataError(f"{table}: no results of scans or images. {AGAIN}")
    amount, count, unit, factor = UNITS[what]
    items: dict[str, Item] = {}
    try:
        for row in rows:
            name = f"{row[what]}, frame {row['frame']}" if row.get("frame") else row[what]
            item = items.setdefault(name, Item(name, row[what], f"item-{len(items) + 1}"))
            is_there = int(row[count]) > 0
            confidence = float(row[CONFIDENCE] or "nan")
            found = factor * float(row[amount]) if is_there else None
            item.masks[row["structure"]] = Mask(found, confidence, is_there and row["review"] == "yes")
    except (ValueError, KeyError) as error:
        raise DataError(f"{table}: a damaged table ({error!r}). {AGAIN}") from error
    return sorted(items.values(), key=lambda item: natural_key(item.name)), unit, what


def confidence_strips(items: Sequence[Item], structures: Sequence[str]) -> Plot | None:
    """The confidence × 100 of all masks by structure; ids of the points are those of the rows."""
    cases = {
        name: [(each.name, each.anchor, 100 * each.masks[name].confidence) for each in items if name in each.masks]
        for name in structures
    }
    return make_plot(list(cases.items()), 0.0, 100.0)


def _pictures(items: Sequence[Item], folder: Path, end: str) -> tuple[list[tuple[Item, Picture]], list[str]]:
    """Overlays, the least confident first, and what a reader must know of them."""
    first = {}
    for item in sorted(items, key=lambda item: item.lowest):
        first.setdefault(item.file, item)  # a scan of several frames has one overlay
    drawn = [item for item in first.values() if (folder / f"{item.file}{end}").is_file()]
    made, warnings = [], []
    for item in drawn[:MOST_PICTURES]:
        try:
            made.append((item, encode_picture(folder / f"{item.file}{end}", item.file, MOST_BYTES)))
        except DataError as error:
            warnings.append(str(error))
    if len(drawn) > MOST_PICTURES:
        warnings.append(f"{len(drawn) - MOST_PICTURES} further overlays, of more confident masks, are in the folder.")
    if not drawn:
        warnings.append("No overlay was drawn: give --overlays to see the masks on this page.")
    return made, warnings
