"""What the steps over prepared images share: opening the folder, knowing what is done, arguments, outlines."""

import argparse
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from dataloaders.description import DatasetSpec
from dataloaders.images.folder import MANIFEST, ImageFolder
from util.errors import DataError
from util.files import atomic_write, file_sha256, read_json, write_json
from util.results.pictures import COLOURS

JOURNAL = ".making.json"  # what the images of an unfinished folder are being made with
OTHER_COLOUR, EXPERT_COLOUR = COLOURS[:2]  # orange, blue


@dataclass(frozen=True)
class Output:
    """A folder with a PNG per image and a record, written last, that says with what they were made.

    Attributes:
        folder: where they are.
        record_name: such as "noise.json".
        made_with: parameters, and a hash of all that was read; as it is written to JSON.
    """

    folder: Path
    record_name: str
    made_with: dict[str, Any]

    def path(self, image_id: str) -> Path:
        """The PNG of an image."""
        return self.folder / f"{image_id}.png"

    def finished(self, ids: Iterable[str]) -> dict[str, Any] | None:
        """The record where everything is there, and made with the same; else None."""
        path = self.folder / self.record_name
        record = read_json(path) if path.exists() else {}
        is_same = isinstance(record, dict) and record.get("made_with") == self.made_with
        return record if is_same and all(self.path(image_id).exists() for image_id in ids) else None

    def begin(self) -> None:
        """Clears the folder of what was made with something else; what an interrupted run has left is kept.

        Raises:
            DataError: the folder holds what was not made here, such as imported labels.
        """
        journal, record = self.folder / JOURNAL, self.folder / self.record_name
        if record.exists() and "made_with" not in read_json(record):
            raise DataError(
                f"{self.folder}: holds files that were imported, not made here; nothing is overwritten. Move the "
                "folder away, or choose other parameters."
            )
        (self.folder / self.record_name).unlink(missing_ok=True)
        if not (journal.exists() and read_json(journal) == self.made_with):
            journal.unlink(missing_ok=True)
            for path in self.folder.glob("*.png"):
                path.unlink()
            write_json(journal, self.made_with)

    def finish(self, **findings: Any) -> dict[str, Any]:
        """Writes and returns the record."""
        record = {"made_with": self.made_with, **findings}
        write_json(self.folder / self.record_name, record)
        (self.folder / JOURNAL).unlink(missing_ok=True)
        return record


def hash_of(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of some files.

    Raises:
        DataError: one is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(f"{path.parent.name}/{path.name} {file_sha256(path)}\n".encode())
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); {MANIFEST} lists it. Run `python -m data.prepare` again."
            ) from error
    return digest.hexdigest()


def open_images(spec: DatasetSpec, data_dir: Path, size_px: int | None = None) -> ImageFolder:
    """Opens a prepared set, given the data root or the prepared folder itself.

    Raises:
        DataError: nothing is prepared there.
    """
    root = data_dir.expanduser()
    return ImageFolder(root if (root / MANIFEST).exists() else root / spec.prepared_folder(size_px), spec)


def training_ids(folder: ImageFolder) -> tuple[str, ...]:
    """Ids of the training images, ascending.

    Raises:
        DataError: there is none.
    """
    ids = folder.ids("train")
    if not ids:
        raise DataError(f"{folder.folder / MANIFEST}: no image in split 'train'. Prepare the training part first.")
    return ids


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every step over prepared images."""
    add = parser.add_argument
    add("dataset", help="ISIC2017, JSRT or SHENZHEN")
    add("--structure", nargs="+", metavar="NAME", help="such as lung (default: every structure of the data set)")
    add("--data-dir", type=Path, default=Path("data"), help="data root, or a prepared folder (default: data)")
    add("--size-px", type=int, help="side of the prepared images (default: the data set's)")
    add("--jobs", type=int, default=1, help="processes (default: 1)")
    add("--picture", type=Path, metavar="FILE.png", help="also draw some images with outlines")


def structures_of(spec: DatasetSpec, names: Sequence[str] | None) -> tuple[str, ...]:
    """The names given, checked; all of the data set's where none is.

    Raises:
        ConfigError: one is unknown.
    """
    return tuple(spec.structure(name).name for name in names or [structure.name for structure in spec.classes])


def picture_grid(title: str, n_rows: int, n_columns: int) -> tuple[Figure, np.ndarray]:
    """A figure of square panels without axes, and the (n_rows, n_columns) panels."""
    figure = Figure(figsize=(2.4 * n_columns, 2.65 * n_rows + 0.5), dpi=110, layout="constrained")
    figure.suptitle(title, fontweight="bold")
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    return figure, grid


def show(axes: Axes, image: UInt8[np.ndarray, "H W *C"], title: str) -> None:
    """Shows an image, row 0 on top."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=8)


def outline(axes: Axes, mask: Bool[np.ndarray, "H W"], colour: str, dashes: Any = "solid") -> None:
    """Draws the outline of a mask over an image; of an empty one none."""
    if mask.any():
        rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
        padded = np.pad(mask, 1)  # so that outlines close at the image's border
        lines = axes.contour(columns, rows, padded, [0.5], colors=[colour], linestyles=[dashes])
        lines.set(linewidth=1.2, path_effects=[withStroke(linewidth=2.2, foreground="black", alpha=0.6)])
        axes.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def save_picture(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
