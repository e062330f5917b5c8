"""Tiles: what a page holds of a case, as text small enough for a page of many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import cv2
import numpy as np
from jaxtyping import Bool, Integer, Num
from PIL import Image
from skimage.segmentation import find_boundaries

from data.pictures.cases import NOISE, PSEUDO, SUPERPIXELS, CasePicture, CaseSource, layer_title
from dataloaders.partial.store import MARKED, UNKNOWN
from util.results.metrics import overlap_counts, overlap_scores
from util.results.pictures import (
    BOUNDARY_COLOUR,
    EXPERT_COLOUR,
    OTHER_COLOUR,
    outline_path,
    outline_style,
)
from util.results.report.images import data_url

SIDES_PX = (384, 320, 256, 192, 144, 96)  # longer side of a picture: the first that is small enough
UNITS = 2  # of a path per pixel of the picture
UNKNOWN_COLOUR = "#D81B60"  # pixels of pseudo-labels that do not count


@dataclass(frozen=True)
class Shape:
    """A path over the picture; colours and dashes as in SVG."""

    path: str
    stroke: str = "none"
    fill: str = "none"
    dashes: str = ""


@dataclass(frozen=True)
class Overlay:
    """A layer of a tile.

    Attributes:
        title: of the layer.
        notes: lines of the caption while it is shown.
        shapes: in the order of drawing.
        raster: data URL of a picture with transparent ground; empty: none.
    """

    title: str
    notes: tuple[str, ...]
    shapes: tuple[Shape, ...] = ()
    raster: str = ""

    @property
    def n_bytes(self) -> int:
        """Size of its texts."""
        return len(self.raster) + sum(len(shape.path) for shape in self.shapes)


@dataclass(frozen=True)
class Tile:
    """A case in the page; `width` and `height` are units of its paths.

    Attributes:
        id: of the case.
        place: which slice; empty for images.
        classes: values that the whole case shows.
        labelled: share of the picture that some class takes, in percent; None: not labelled.
        shape, spacing_mm: of the whole case.
        image: data URL.
        expert: outlines of the expert's masks.
        overlays: of the layers that the case has.
    """

    id: str
    place: str
    classes: tuple[int, ...]
    labelled: float | None
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    width: int = 0
    height: int = 0
    image: str = ""
    expert: tuple[Shape, ...] = ()
    overlays: tuple[Overlay, ...] = field(default=())

    @property
    def n_bytes(self) -> int:
        """Size of its texts."""
        return len(self.image) + sum(len(each.path) for each in self.expert) + sum(o.n_bytes for o in self.overlays)


def class_colours(names: Sequence[str], pseudo: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Class -> colour and dashes (SVG) of its outlines; classes of pseudo-labels alone come last."""
    every = dict.fromkeys([*names, *pseudo])
    return {name: _svg_style(index) for index, name in enumerate(every)}


def _svg_style(index: int) -> tuple[str, str]:
    colour, dashes = outline_style(index)
    return colour, "" if dashes == "solid" else " ".join(f"{2 * length:g}" for length in dashes[1])


def make_tile(case_id: str, source: CaseSource, colours: Mapping[str, tuple[str, str]], largest_bytes: int) -> Tile:
    """Reads a case and encodes it with the first side in `SIDES_PX` that fits `largest_bytes`, or with the last.

    Raises:
        DataError: a file is absent or damaged.
    """
    case = source.read(case_id)
    union = np.logical_or.reduce(list(case.masks.values())) if case.masks else None
    shown = tuple(value for value, count in case.n_pixels.items() if count)
    labelled = None if union is None else 100 * float(union.mean())
    tile = Tile(case_id, case.place, shown, labelled, case.shape, case.spacing_mm)
    height, width = case.image.shape[0] * case.aspect, case.image.shape[1]
    for side in SIDES_PX:
        factor = side / max(height, width)
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        tile = _encode(tile, case, source, colours, size)
        if tile.n_bytes <= largest_bytes:
            break
    return tile


def _encode(
    tile: Tile, case: CasePicture, source: CaseSource, colours: Mapping[str, tuple[str, str]], size: tuple[int, int]
) -> Tile:
    """The tile with its picture in a size (columns, rows)."""
    rows, columns = case.image.shape[:2]
    trace = partial(outline_path, scale=(UNITS * size[0] / columns, UNITS * size[1] / rows))
    names, first_id = source.spec.class_names, int(source.spec.kind == "scans")  # of scans, 0 belongs to none
    expert = [_outline(trace(mask), colours[names[value]]) for value, mask in case.masks.items() if mask.any()]
    overlays = [
        *(_superpixels(name, ids, size, first_id) for name, ids in case.superpixels.items()),
        *(_noise(name, noisy, case.masks, source.spec.headings, trace) for name, noisy in case.noisy.items()),
        *([_pseudo(case.pseudo, colours, trace)] if case.pseudo else []),
    ]
    return replace(
        tile,
        width=UNITS * size[0],
        height=UNITS * size[1],
        image=data_url(Image.fromarray(_resize(case.image, size))),
        expert=tuple(expert),
        overlays=tuple(overlays),
    )


def _outline(path: str, style: tuple[str, str]) -> Shape:
    return Shape(path, stroke=style[0], dashes=style[1])


def _resize(image: Num[np.ndarray, "H W *C"], size: tuple[int, int]) -> Num[np.ndarray, "rows columns *C"]:
    """An image in a size (columns, rows); one of square pixels is left to the browser to enlarge."""
    (height, width), (columns, rows) = image.shape[:2], size
    is_larger = columns >= width
    if is_larger and columns * height == rows * width:
        return np.ascontiguousarray(image)
    method = cv2.INTER_LINEAR if is_larger else cv2.INTER_AREA
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=method)


def _superpixels(name: str, ids: Integer[np.ndarray, "H W"], size: tuple[int, int], first_id: int) -> Overlay:
    resized = cv2.resize(ids.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
    edges = Image.fromarray(find_boundaries(resized, mode="inner").astype(np.uint8), "P")
    edges.putpalette([0, 0, 0, *(round(255 * part) for part in BOUNDARY_COLOUR)])
    edges.info["transparency"] = 0
    notes = (f"{np.count_nonzero(np.unique(ids) >= first_id)} superpixels",)
    return Overlay(layer_title(SUPERPIXELS, name), notes, raster=data_url(edges, "png"))


def _noise(name: str, noisy: Mapping[int, np.ndarray], clean: Mapping[int, np.ndarray], headings, trace) -> Overlay:
    """Added and lost pixels of every noisy mask, and its Dice."""
    shapes, notes = [], []
    for value, mask in noisy.items():
        expert = clean[value]
        changed = {OTHER_COLOUR: trace(mask & ~expert), EXPERT_COLOUR: trace(expert & ~mask)}
        shapes += [Shape(path, colour, colour) for colour, path in changed.items() if path]
        dice = overlap_scores(overlap_counts(mask, expert)).dice if mask.any() or expert.any() else 1.0
        notes.append(f"{headings[value]}: Dice {dice:.3f}" + (", unchanged" if dice == 1 else ""))
    return Overlay(layer_title(NOISE, name), tuple(notes), tuple(shapes))


def _pseudo(codes: Mapping[str, np.ndarray], colours: Mapping[str, tuple[str, str]], trace) -> Overlay:
    """Outlines of what is marked, and areas that do not count for some class."""
    unknown: Bool[np.ndarray, "H W"] = np.logical_or.reduce([code == UNKNOWN for code in codes.values()])
    shapes = [Shape(trace(unknown), fill=UNKNOWN_COLOUR)] if unknown.any() else []
    shapes += [_outline(path, colours[name]) for name, code in codes.items() if (path := trace(code == MARKED))]
    notes = [f"{name}: {100 * float((code == MARKED).mean()):.1f} % marked" for name, code in codes.items()]
    return Overlay(layer_title(PSEUDO), tuple(notes), tuple(shapes))
