"""Shared by all commands on data: resolving the target, options, up-to-date results."""

import argparse
import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataloaders.catalog import ALIASES, dataset, dataset_names
from dataloaders.description import FILE_NAME, DatasetSpec, read_description
from dataloaders.images.derived import IMPORTED, Derived
from dataloaders.images.folder import MANIFEST, ImageFolder, prepare_command
from util.cli import whole
from util.errors import ConfigError, DataError, UserError
from util.files import read_json, write_json
from util.records import Record, hash_files

LEAST_PX = 16  # rows and columns of prepared images and scans
JOURNAL = ".making.json"  # the record of an unfinished folder


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Output:
    """The making of a folder with one PNG per training image, and of its record, which is written last.

    Attributes:
        derived: the folder, its settings and the prepared files that it is made from.
        further_inputs: files elsewhere that it is made from.
        tables: names of further files that belong to a finished folder.
    """

    derived: Derived
    further_inputs: tuple[Path, ...] = ()
    tables: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Of the PNG files."""
        return self.derived.folder

    def path(self, image_id: str) -> Path:
        """The PNG of an image."""
        return self.derived.path(image_id)

    def update(self, ids: Collection[str], title: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Runs `make`, which writes all files and returns the findings, unless the folder is up to date.

        Returns:
            The findings.

        Raises:
            DataError: an input is missing, or the folder holds imported labels.
        """
        wanted = Record(json.loads(json.dumps(self.derived.settings)), self._hash_inputs())
        record = self.derived.record()
        if record and IMPORTED in record.settings:
            raise _imported(self.folder)
        files = [*map(self.path, ids), *(self.folder / name for name in self.tables)]
        root = self.derived.images.folder
        is_same = record is not None and not record.differences(wanted.settings, wanted.made_from)
        if record and is_same and record.made == hash_files(files, root):
            log.info("%s: up to date", title)
            return record.facts
        self._begin(wanted)
        record = replace(wanted, facts=make(), made=hash_files(files, root))
        write_json(self.derived.record_path, record.to_json())
        (self.folder / JOURNAL).unlink(missing_ok=True)
        return record.facts

    def _hash_inputs(self) -> dict[str, str]:
        files = [*self.derived.inputs, *self.further_inputs]
        found = hash_files(files, self.derived.images.folder)
        if len(found) < len(files):
            missing = next(file for file in files if not file.is_file())
            command = prepare_command(self.derived.images.spec, self.derived.images.folder)
            raise DataError(f"{missing}: cannot be read (no such file); {MANIFEST} lists it. Run `{command}` again.")
        return found

    def _begin(self, wanted: Record) -> None:
        """Removes outdated files; those of an interrupted run with the same settings and inputs are kept."""
        journal, record_path = self.folder / JOURNAL, self.derived.record_path
        if IMPORTED in _content(record_path):  # by an earlier version
            raise _imported(self.folder)
        record_path.unlink(missing_ok=True)
        unfinished = Record.from_json(_content(journal))
        if unfinished is None or unfinished.differences(wanted.settings, wanted.made_from):
            journal.unlink(missing_ok=True)
            for path in self.folder.glob("*.png"):
                path.unlink()
            write_json(journal, wanted.to_json())


def _content(path: Path) -> dict[str, Any]:
    """Of a JSON file; empty where there is none, or it is damaged."""
    try:
        content = read_json(path)
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}


def _imported(folder: Path) -> DataError:
    return DataError(
        f"{folder}: holds imported files, which are not overwritten. Move the folder away, or choose other parameters."
    )


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
            "the name, or write a draft with `frugalseg describe FOLDER`."
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
        raise DataError(
            f"{folder / MANIFEST}: no such file. Run `{prepare_command(spec, folder)}`, or correct --data-dir."
        )
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
    add("--size-px", type=whole(LEAST_PX), help="images: side of the prepared images (default: the data set's)")


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
