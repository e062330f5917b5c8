"""Views: what a page shows of a case that was scored. Each is a small file that a validation writes."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num, Shaped, UInt8

from util.errors import DataError
from util.files import atomic_write
from util.results.overlays import for_viewing

VIEWS = "views"  # folder of them in that of a run

OPPOSITE = dict(zip("LRAPSI", "RLPAIS", strict=True))
DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
DARK = 12  # of 255: what is darker is outside the body
MARGIN = 2  # pixels around the body
UNKNOWN = 255


@dataclass(frozen=True)
class About:
    """What a view is of.

    Attributes:
        case: id.
        conditions: columns of scores.csv with the values that its scores have, such as protocol and weights.
        names: label value -> structure.
        picture: of the same case, relative to the view's file; empty: none.
        letters: directions of the left and of the top edge, such as ("R", "A").
        spacing_mm: between slices, rows and columns.
        rises: whether later slices are further up (S), in front (A) or right (R).
    """

    case: str
    conditions: dict[str, str]
    names: dict[str, str]
    picture: str
    letters: tuple[str, str]
    spacing_mm: tuple[float, float, float]
    direction: str


@dataclass(frozen=True, eq=False)
class View:
    """A case for the viewer, its slices turned as radiologists see them and cropped to the body; (D, H, W) each."""

    path: Path
    about: About
    image: UInt8[np.ndarray, "D H W"]
    truth: UInt8[np.ndarray, "D H W"]
    prediction: UInt8[np.ndarray, "D H W"]

    @property
    def picture(self) -> Path | None:
        """The picture of the same case, if there is one."""
        return self.path.parent / self.about.picture if self.about.picture else None

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), to RAS+ millimetres with (x, y, z) = (column, row, slice); the corner is the origin."""
        left, top = self.about.letters
        axes = [DIRECTIONS[OPPOSITE[left]], DIRECTIONS[OPPOSITE[top]], DIRECTIONS[self.about.direction]]
        affine = np.eye(4)
        affine[:3, :3] = np.transpose(axes) * np.asarray(self.about.spacing_mm[::-1])
        return affine


def save_view(
    path: Path,
    image: Num[np.ndarray, "D H W"],
    truth: Shaped[np.ndarray, "D H W"],
    prediction: Shaped[np.ndarray, "D H W"],
    affine: np.ndarray,
    *,
    case: str,
    names: Mapping[int, str],
    conditions: Mapping[str, Any],
    picture: Path | None = None,
) -> None:
    """Writes a view, atomically.

    Args:
        path: ends in .npz.
        image: intensities; the middle 99 % of those of the volume fill the grey scale.
        truth: label values; 255: unknown.
        prediction: label values.
        affine: (4, 4), see `for_viewing`.
        case: id in scores.csv.
        names: label value -> structure.
        conditions: see `About`.
        picture: of the same case.
    """
    import nibabel as nib

    low, high = np.percentile(image, (0.5, 99.5))
    grey = np.clip((image - low) * (255 / max(float(high - low), 1e-6)), 0, 255).astype(np.uint8)
    known = np.where(truth == UNKNOWN, 0, truth)
    turned = [for_viewing(volume, affine) for volume in (grey, known, prediction)]
    letters, aspect = turned[0][1:]
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    columns = sizes[0] if np.isclose(sizes[1] / sizes[0], aspect) else sizes[1]
    box = _body([volume for volume, *_ in turned])
    about = About(
        case=case,
        conditions={name: str(value) for name, value in conditions.items()},
        names={str(value): name for value, name in names.items()},
        picture="" if picture is None else os.path.relpath(picture, path.parent),
        letters=letters,
        spacing_mm=(float(sizes[2]), float(columns * aspect), float(columns)),
        direction=nib.aff2axcodes(affine)[2],
    )
    volumes = {
        name: np.ascontiguousarray(volume[:, *box], dtype=np.uint8)
        for name, (volume, *_) in zip(("image", "truth", "prediction"), turned, strict=True)
    }
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, about=json.dumps(asdict(about)), **volumes)


def _body(volumes: list[np.ndarray]) -> tuple[slice, slice]:
    """Rows and columns of the body and of all that is marked, with a margin."""
    image, *labels = volumes
    is_shown = (image > DARK).mean(0) > 0.02  # noise in single slices does not count
    for label in labels:
        is_shown |= (label > 0).any(0)
    box = []
    for axis in (1, 0):
        places = np.flatnonzero(is_shown.any(axis))
        start, stop = (places[0], places[-1] + 1) if len(places) else (0, is_shown.shape[1 - axis])
        box.append(slice(max(int(start) - MARGIN, 0), int(stop) + MARGIN))
    return box[0], box[1]


def read_view(path: Path) -> View:
    """Reads a view.

    Raises:
        DataError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            about = json.loads(str(content["about"]))
            about |= {"letters": tuple(about["letters"]), "spacing_mm": tuple(about["spacing_mm"])}
            return View(path, About(**about), *(content[name] for name in ("image", "truth", "prediction")))
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(f"{path}: not a view of a case ({error}). Run the validation again.") from error
