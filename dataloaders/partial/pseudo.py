"""Pseudo-labels on disk: what a trained network says of the classes that training images are not annotated for.

<folder>/pseudo_labels.json        which run made them, of which images; written last
<folder>/<data set>/<class>/<id>.png  8 bit: 0, 255 marked, 128 unknown; on the grid of the prepared image
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from dataloaders.io.png import read_stored, write_png
from dataloaders.partial.store import MARKED, UNKNOWN
from dataloaders.samples import Task
from util.errors import ConfigError, DataError, UserError
from util.files import read_json_object, short_digest, write_json
from util.records import hash_files

RECORD = "pseudo_labels.json"
FORMAT = 1
MARKED_GREY, UNKNOWN_GREY = 255, 128
EXPORT = "`frugalseg pseudo-labels partial_generator ...`"


@dataclass(frozen=True)
class PseudoLabelFolder:
    """Pseudo-labels of the training images of several data sets."""

    folder: Path

    @property
    def record_path(self) -> Path:
        """The record of a finished folder."""
        return self.folder / RECORD

    @property
    def maker(self) -> tuple[str, str] | None:
        """The run that made the labels, and a digest of how: its settings but for the seed, thresholds and filters.

        None: the folder holds no finished labels.

        Raises:
            DataError: the record is damaged.
        """
        if not self.record_path.exists():
            return None
        content = self._content()
        return content["run"], short_digest({"recipe": content["recipe"], "settings": content["settings"]})

    def path(self, dataset: str, name: str, image_id: str) -> Path:
        """The file of a class of an image."""
        return self.folder / dataset / name / f"{image_id}.png"

    def contents(self, dataset: str) -> tuple[tuple[str, ...], frozenset[str]]:
        """Classes and images of a data set with pseudo-labels.

        Raises:
            DataError: the labels are missing, unfinished, damaged, or of other data sets.
        """
        content = self._content()
        self._require_set(dataset, content)
        return tuple(content["classes"][dataset]), frozenset(content["images"][dataset])

    def begin(self, run: str) -> None:
        """Prepares the folder for the labels of a run; former ones of the same run are replaced.

        Raises:
            ConfigError: it holds labels of another run.
        """
        former = self._former_run()
        if former not in ("", run):
            raise ConfigError(
                f"{self.folder}: holds pseudo-labels of the run {former}, not of {run}. Choose another folder with "
                "export_to, or move it away."
            )
        self.record_path.unlink(missing_ok=True)

    def _former_run(self) -> str:
        if not self.record_path.exists():
            return ""
        try:
            return str(read_json_object(self.record_path).get("run", ""))
        except UserError:
            return "unknown"

    def write(
        self, dataset: str, image_id: str, names: Sequence[str],
        masks: Bool[np.ndarray, "K H W"], is_certain: Bool[np.ndarray, "K H W"],
    ) -> None:  # fmt: skip
        """Writes the masks of some classes of an image; `is_certain`: pixels that count."""
        for name, mask, certain in zip(names, masks, is_certain, strict=True):
            grey = np.where(certain, mask * np.uint8(MARKED_GREY), np.uint8(UNKNOWN_GREY))
            write_png(self.path(dataset, name, image_id), grey.astype(np.uint8))

    def finish(
        self, run: str, recipe: str, tasks: Sequence[Task], images: Mapping[str, Mapping[str, str]],
        classes: Mapping[str, Sequence[str]], settings: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Writes the record.

        Args:
            run: name of the experiment that made the labels.
            recipe: hash of its settings, which its repetitions share.
            tasks: of its network.
            images: data set -> training image -> SHA-256 of its file.
            classes: data set -> classes with a file per image.
            settings: how probabilities became labels.
        """
        files = [self.path(s, name, i) for s, ids in images.items() for name in classes[s] for i in ids]
        content = {
            "format": FORMAT,
            "run": run,
            "recipe": recipe,
            "tasks": [asdict(task) for task in tasks],
            "settings": dict(settings),
            "images": {name: dict(each) for name, each in images.items()},
            "classes": {name: list(each) for name, each in classes.items()},
            "files": hash_files(files, self.folder),
        }
        write_json(self.record_path, content)

    def require_for(self, tasks: Sequence[Task], images: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
        """Checks that the labels are complete, of these images and tasks, and as one run wrote them.

        Args:
            tasks: that are learned.
            images: data set -> training image -> SHA-256 of its file.

        Returns:
            Data set -> classes with pseudo-labels.

        Raises:
            DataError: they are missing, unfinished, damaged, or of other images or tasks.
        """
        content = self._content()
        own = {name for task in content["tasks"] for name in task["classes"]}
        lacking = [name for task in tasks for name in task.classes if name not in own]
        if lacking:
            raise self._error(f"the run {content['run']} does not segment {lacking[0]}")
        for name, now in images.items():
            self._require_set(name, content)
            self._require_images(name, now, content["images"][name])
        expected = {file: value for file, value in content["files"].items() if file.split("/")[0] in images}
        now = hash_files([self.folder / file for file in expected], self.folder)
        changed = [file for file, value in expected.items() if now.get(file) != value]
        if changed:
            state = "is missing" if changed[0] not in now else "is not as the run wrote it"
            raise self._error(f"{changed[0]} {state} ({len(changed)} such)")
        return {name: tuple(content["classes"][name]) for name in images}

    def _require_set(self, name: str, content: Mapping[str, Any]) -> None:
        if name not in content["images"]:
            raise self._error(f"none of the data set {name}; found {', '.join(content['images'])}")

    def _require_images(self, name: str, now: Mapping[str, str], labelled: Mapping[str, str]) -> None:
        lacking = [image_id for image_id in now if image_id not in labelled]
        if lacking:
            raise self._error(f"no labels of the training image {lacking[0]} of {name} ({len(lacking)} such)")
        other = [image_id for image_id, value in now.items() if labelled[image_id] != value]
        if other:
            raise self._error(f"made from another image {other[0]} of {name} than now is prepared ({len(other)} such)")

    def _content(self) -> dict[str, Any]:
        if not self.record_path.exists():
            raise self._error("missing, or not finished")
        content = read_json_object(self.record_path)
        keys = ("run", "recipe", "tasks", "settings", "images", "classes", "files")
        if content.get("format") != FORMAT or any(key not in content for key in keys):
            raise self._error(f"{RECORD} is damaged, or of another version")
        return content

    def _error(self, problem: str) -> DataError:
        return DataError(f"pseudo_labels={str(self.folder)!r}: {problem}. Make them again with {EXPORT}.")

    def hashes(self) -> dict[str, str]:
        """File -> SHA-256 of all labels, as recorded."""
        return {f"pseudo/{name}": value for name, value in self._content()["files"].items()}


def read_pseudo_label(path: Path) -> UInt8[np.ndarray, "H W"]:
    """The codes of a class: 0, `MARKED` or `UNKNOWN`.

    Raises:
        DataError: absent, damaged, or other grey values.
    """
    grey = read_stored(path)
    unknown = grey == UNKNOWN_GREY
    if grey.ndim != 2 or not np.isin(grey, (0, MARKED_GREY, UNKNOWN_GREY)).all():
        raise DataError(
            f"{path}: expected grey values 0, {UNKNOWN_GREY} and {MARKED_GREY}. Make it again with {EXPORT}."
        )
    return ((grey == MARKED_GREY) * np.uint8(MARKED) + unknown * np.uint8(UNKNOWN)).astype(np.uint8)
