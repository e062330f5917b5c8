"""Shared by all commands on data: resolving the target, options, up-to-date results."""

import argparse
import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataloaders.catalog import ALIASES, dataset, dataset_names
from dataloaders.description import FILE_NAME, DatasetSpec, read_description
from dataloaders.images.folder import MANIFEST, ImageFolder, prepare_command
from util.errors import ConfigError, DataError
from util.files import file_sha256, read_json, read_json_object, write_json

JOURNAL = ".making.json"  # settings and inputs of an unfinished folder


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Output:
    """A folder with one PNG per image and a record, written last, of the settings and inputs.

    Attributes:
        folder: of the PNG files.
        record_name: such as "noise.json".
        made_with: parameters, and a hash of all inputs; as it is written to JSON.
        tables: names of further files that belong to a finished folder.
    """

    folder: Path
    record_name: str
    made_with: dict[str, Any]
    tables: tuple[str, ...] = ()

    def path(self, image_id: str) -> Path:
        """The PNG of an image."""
        return self.folder / f"{image_id}.png"

    def finished(self, ids: Iterable[str]) -> dict[str, Any] | None:
        """The record if the folder is complete and up to date; else None."""
        path = self.folder / self.record_name
        record = read_json_object(path) if path.exists() else {}
        is_same = record.get("made_with") == self.made_with
        files = [*(self.path(image_id) for image_id in ids), *(self.folder / name for name in self.tables)]
        return record if is_same and all(file.exists() for file in files) else None

    def update(self, ids: Collection[str], title: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Runs `make`, which writes all files and returns the findings, unless the folder is up to date.

        Returns:
            The record.

        Raises:
            DataError: the folder holds imported labels.
        """
        record = self.finished(ids)
        if record:
            log.info("%s: up to date", title)
            return record
        self.begin()
        return self.finish(**make())

    def begin(self) -> None:
        """Removes outdated files; those of an interrupted run with the same settings and inputs are kept.

        Raises:
            DataError: the folder holds imported labels.
        """
        journal, record = self.folder / JOURNAL, self.folder / self.record_name
        if record.exists() and "made_with" not in read_json_object(record):
            raise DataError(
                f"{self.folder}: holds imported files, which are not overwritten. Move the folder away, or choose "
                "other parameters."
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


def hash_files(paths: Iterable[Path]) -> str:
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


def resolve_target(
    target: str | Path, data_dir: Path, dataset_name: str | None = None, size_px: int | None = None
) -> tuple[DatasetSpec, Path]:
    """The data set and the prepared folder that the target of a command means.

    Args:
        target: name of a built-in set, path of a description, or a prepared folder.
        data_dir: data root; for names and descriptions. The prepared folder of a set of images itself is accepted, too.
        dataset_name: data set of a prepared folder, needed where it has no `dataset.json5`.
        size_px: side of the prepared images; None: that of the set.

    Raises:
        ConfigError: an unknown set, or a folder whose data set is not known.
        DataError: a description that cannot be read.
    """
    path = Path(target).expanduser()
    if not is_prepared_folder(target):
        if dataset_name is not None:
            raise ConfigError(f"--dataset {dataset_name}: only next to a prepared folder. Leave it out for {target}.")
        spec, root = dataset(target), data_dir.expanduser()
        is_prepared = spec.kind == "images" and (root / MANIFEST).exists()
        return spec, root if is_prepared else root / spec.prepared_folder(size_px)
    if dataset_name is not None:
        return dataset(dataset_name), path
    if not (path / FILE_NAME).is_file():
        raise ConfigError(
            f"{path}: no {FILE_NAME} in this folder, so the data set is unknown. Add --dataset NAME, the name of a "
            "built-in set or the path of a description."
        )
    return read_description(path / FILE_NAME), path


def is_prepared_folder(target: str | Path) -> bool:
    """Whether a target is a prepared folder, not a name, a description, or a folder with a description alone."""
    path = Path(target).expanduser()
    is_name = str(target).lower() in {*map(str.lower, dataset_names()), *ALIASES}
    has_cases = (path / MANIFEST).exists() or any(path.glob("image_*"))
    return path.is_dir() and not is_name and (has_cases or not (path / FILE_NAME).is_file())


def files_table(target: str | Path, spec: DatasetSpec) -> Path | None:
    """The table of the files of one's own data, next to its description; None for sets without one.

    Raises:
        DataError: the description names a table that does not exist.
    """
    if not spec.files:
        return None
    path = Path(target).expanduser()
    table = (path if path.is_dir() else path.parent) / spec.files
    if not table.is_file():
        raise DataError(
            f"{table}: no such file; expected the table of files that {target} names (files: {spec.files!r}). Correct "
            "the name, or write a draft with `python -m data.describe FOLDER`."
        )
    return table


def open_images(
    target: str | Path, data_dir: Path, dataset_name: str | None = None, size_px: int | None = None
) -> ImageFolder:
    """Opens the prepared images that the target of a command means.

    Raises:
        ConfigError: an unknown set, or a set of scans.
        DataError: nothing is prepared there.
    """
    spec, folder = resolve_target(target, data_dir, dataset_name, size_px)
    if spec.kind != "images":
        raise ConfigError(f"{target}: {spec.name} is a set of scans; expected a set of images.")
    if not folder.is_dir() and not (folder / MANIFEST).exists():
        raise DataError(f"{folder / MANIFEST}: no such file. Run `{prepare_command(spec)}`, or correct --data-dir.")
    return ImageFolder(folder, spec)


def refuse_options(
    given: argparse.Namespace, parser: argparse.ArgumentParser, names: Collection[str], reason: str
) -> None:
    """Checks that options which do not apply have their defaults.

    Args:
        given: the parsed command line.
        parser: it was parsed with.
        names: of the options that do not apply, as attributes of `given`.
        reason: such as "only for sets of images".

    Raises:
        ConfigError: one is set.
    """
    for name in names:
        if getattr(given, name) != parser.get_default(name):
            raise ConfigError(f"--{name.replace('_', '-')}: {reason}. Leave it out for {given.target}.")


def training_ids(folder: ImageFolder) -> tuple[str, ...]:
    """Ids of the training images, ascending.

    Raises:
        DataError: there is none.
    """
    ids = folder.ids("train")
    if not ids:
        raise DataError(f"{folder.folder / MANIFEST}: no image in split 'train'. Prepare the training part first.")
    return ids


def add_target(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which prepared data a command works on."""
    add = parser.add_argument
    add("target", metavar="TARGET", help="built-in name, description (my_set.json5), or prepared folder")
    add("--data-dir", type=Path, default=Path("data"), help="data root, for names and descriptions (default: data)")
    add("--dataset", metavar="NAME", help="data set of a prepared folder that has no dataset.json5")
    add("--size-px", type=int, help="images: side of the prepared images (default: the data set's)")


def add_structures(parser: argparse.ArgumentParser) -> None:
    """The argument that selects structures of a set of images."""
    add = parser.add_argument
    add("--structure", nargs="+", metavar="NAME", help="images: such as lung (default: all of the data set)")


def select_structures(spec: DatasetSpec, names: Sequence[str] | None) -> tuple[str, ...]:
    """Checks the names; None: all structures of the data set.

    Raises:
        ConfigError: one is unknown.
    """
    return tuple(spec.structure(name).name for name in names or [structure.name for structure in spec.classes])
