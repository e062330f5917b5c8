"""The description of a data set, as `dataset.json5` holds it: one schema for the built-in sets and for users' own.

A file names the classes, how scans or images are prepared, and how they are split. Comments are allowed. An unknown
key, a wrong type or an impossible value is one error message: the file, the key, what was found, what was expected.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from dataloaders.rules import FoldRule as FoldRule
from dataloaders.rules import GridRule as GridRule
from dataloaders.rules import IntensityRule as IntensityRule
from dataloaders.rules import SplitRule as SplitRule
from dataloaders.samples import Task
from util.errors import ConfigError, DataError
from util.files import read_json5, short_digest, write_json
from util.ids import first_invalid_id, invalid_id_reason
from util.schema import build

BACKGROUND = 0  # prepared class value
FILE_NAME = "dataset.json5"
LARGEST_VALUE = 2**31 - 1  # of a user's label maps
LARGEST_GREY = 65_535  # of those that are pictures
MOST_CLASSES = 254
ALL_GROUPS = "all"


@dataclass(frozen=True)
class ClassSpec:
    """One class of a data set. Its place in the list, counted from 1, is its value in prepared label maps.

    Source of the values for noise, superpixels and crop: released code of superpixel-guided learning (MICCAI 2021) and
    T-Loss (MICCAI 2023).
    """

    name: str
    title: str = ""  # heading in tables; empty: the name
    value: int | None = None  # in the label maps as they are supplied; None: the class's place
    colour: tuple[int, int, int] | None = None  # red, green, blue of the class in colour-coded masks, 0 to 255
    is_scored: bool = True
    noise_rotation_deg: float = 30.0  # largest rotation of simulated affine noise; images only
    n_segments: int = 100  # superpixels per image; images only
    crop: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)  # first and last row, column; fractions of the side

    def __post_init__(self) -> None:
        _require_path_part("name=", self.name)
        if self.value is not None and not 0 < self.value <= LARGEST_VALUE:
            raise ConfigError(
                f"value={self.value} of class {self.name!r}: expected 1 to {LARGEST_VALUE}; 0 is background."
            )
        if self.colour is not None and not all(0 <= part <= 255 for part in self.colour):
            raise ConfigError(
                f"colour={list(self.colour)} of class {self.name!r}: expected three numbers from 0 to 255."
            )
        if not 0 <= self.noise_rotation_deg <= 180:
            raise ConfigError(
                f"noise_rotation_deg={self.noise_rotation_deg} of {self.name!r}: expected 0 to 180 degrees."
            )
        if not 2 <= self.n_segments <= 65_535:
            raise ConfigError(f"n_segments={self.n_segments} of class {self.name!r}: expected 2 to 65535.")
        top, bottom, left, right = self.crop
        if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
            raise ConfigError(
                f"crop={list(self.crop)} of class {self.name!r}: expected first and last row, first and last column as "
                "fractions of the side, 0 to 1."
            )

    @property
    def heading(self) -> str:
        """The class in tables and pictures."""
        return self.title or self.name

    def window(self, side_px: int) -> tuple[slice, slice]:
        """The rows and columns of a square image that are used where this class is learned alone."""
        top, bottom, left, right = (round(fraction * side_px) for fraction in self.crop)
        return slice(top, bottom), slice(left, right)


@dataclass(frozen=True)
class DatasetSpec:
    """A data set of scans (volumes) or of single images. Keys that a method does not need may be left out."""

    name: str
    kind: Literal["scans", "images"]
    title: str = ""
    modality: str = ""  # MR, CT, photograph, radiograph, ...
    channels: Literal[1, 3] = 1
    background: str = "background"  # name of class 0
    background_colour: tuple[int, int, int] = (0, 0, 0)  # red, green, blue of class 0 in colour-coded masks
    classes: tuple[ClassSpec, ...] = ()  # none: scans without any label, on which superpixel methods can train
    tasks: tuple[Task, ...] = ()  # classes that are annotated together; none: every class is a task of its own
    label_groups: tuple[tuple[str, ...], ...] = ()  # classes that an annotated training run may see, by `label_sets`
    files: str = ""  # own data: table of the files (CSV), relative to the description; see docs/own_data.md
    prepared: str = ""  # folder of the prepared scans below the data root; empty: <name>/prepared
    grid: GridRule = field(default_factory=GridRule)
    intensity: IntensityRule = field(default_factory=IntensityRule)
    foreground_above: float | None = None  # scans: prepared intensity above which a pixel may be body; None: Otsu's
    annotators: str = "majority"  # own data with several: majority of them (ties: background), or the name of one
    domains: dict = field(default_factory=dict)  # id of a hospital, scanner or vendor -> its name
    superpixels: bool = True  # scans: whether preparation makes superpixels; false: no method for the set needs them
    masks: Literal["trusted", "suspect"] = "trusted"  # suspect: some given masks are wrong
    cases: tuple[str, ...] = ()  # ids of the published cases, in their order
    folds: FoldRule = field(default_factory=FoldRule)
    split: SplitRule = field(default_factory=SplitRule)
    episodes_per_pass: int | None = None  # scans: episodes in one pass over the slices; None: every usable slice once
    published: dict = field(default_factory=dict)  # number of images per split, or of scans
    source: str = ""  # where the data come from
    licence: str = ""

    def __post_init__(self) -> None:
        _require_path_part("name=", self.name)
        for part in self.prepared.split("/") if self.prepared else ():
            _require_path_part(f"prepared={self.prepared!r}: the part ", part)
        for key, ids in (("cases", self.cases), *(("folds.lists", ids) for ids in self.folds.lists)):
            if reason := first_invalid_id(ids):
                raise ConfigError(f"{key}: {reason}. Correct it.")
        self._check_domains()
        names = [each.name for each in self.classes]
        _require_unique("classes: name", names)
        _require_unique("classes: value", [self.supplied_value(place) for place in range(1, len(names) + 1)])
        _require_unique("classes: colour", [each.colour for each in self.classes if each.colour])
        if any(each.colour == self.background_colour for each in self.classes):
            raise ConfigError(f"background_colour={list(self.background_colour)}: also the colour of a class.")
        self._check_tasks(names)
        for group in self.label_groups:
            for name in group:
                if name not in names:
                    raise ConfigError(f"label_groups: {name!r} is no class; expected some of {', '.join(names)}.")
        values = [each.value or 0 for each in self.classes]
        if self.kind == "images" and max(values, default=0) > LARGEST_GREY:
            raise ConfigError(f"classes: value={max(values)}; expected at most {LARGEST_GREY} in pictures (16 bits).")
        if self.kind == "images" and not self.classes:
            raise ConfigError("classes: none; a set of images needs at least one.")
        if len(self.classes) > MOST_CLASSES:
            raise ConfigError(f"classes: {len(self.classes)}; expected at most {MOST_CLASSES}.")
        if self.episodes_per_pass is not None and self.episodes_per_pass < 1:
            raise ConfigError(f"episodes_per_pass={self.episodes_per_pass}: expected 1 or more.")

    def _check_tasks(self, names: list[str]) -> None:
        _require_unique("tasks: name", [task.name for task in self.tasks])
        _require_unique("tasks: the class", [name for task in self.tasks for name in task.classes])
        for task in self.tasks:
            _require_path_part("tasks: name=", task.name)
            unknown = [name for name in task.classes if name not in names]
            if unknown or not task.classes:
                found = f"{unknown[0]!r} is no class" if unknown else "has no class"
                raise ConfigError(f"tasks: {task.name}: {found}; expected some of {', '.join(names)}.")
        lost = [name for name in names if all(name not in task.classes for task in self.tasks)]
        if self.tasks and lost:
            raise ConfigError(
                f"tasks: the class {lost[0]!r} is in none; expected every class in one, or no task at all."
            )

    def _check_domains(self) -> None:
        if reason := first_invalid_id(self.domains):
            raise ConfigError(f"domains: {reason}. Correct it.")
        for key, title in self.domains.items():
            if not isinstance(title, str):
                raise ConfigError(f"domains.{key}={title!r}: expected a name (text).")

    # Classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by prepared class value; 0 is the background."""
        return self.background, *(each.name for each in self.classes)

    @property
    def headings(self) -> dict[int, str]:
        """Prepared class value -> heading in tables and pictures; without the background."""
        return {value: each.heading for value, each in enumerate(self.classes, start=1)}

    def supplied_value(self, prepared_value: int) -> int:
        """The value that a class has in the label maps as they were supplied."""
        given = self.classes[prepared_value - 1].value
        return prepared_value if given is None else given

    @property
    def evaluated(self) -> tuple[int, ...]:
        """Prepared values of the scored classes."""
        return tuple(value for value, each in enumerate(self.classes, start=1) if each.is_scored)

    @property
    def given_tasks(self) -> tuple[Task, ...]:
        """The tasks that are annotated; where the description names none, every class is one."""
        return self.tasks or tuple(Task(each.name, (each.name,)) for each in self.classes)

    def held_out(self, group: int | str) -> tuple[int, ...]:
        """Prepared values that are tested when `group` is trained on: the scored ones not in it; "all": all scored.

        Raises:
            ConfigError: no such group.
        """
        if group == ALL_GROUPS or (group == 0 and not self.label_groups):
            return self.evaluated
        if not isinstance(group, int) or not 0 <= group < len(self.label_groups):
            choices = [*range(len(self.label_groups)), ALL_GROUPS]
            raise ConfigError(f"label_sets={group!r}: unknown group of {self.name}; expected one of {choices}.")
        seen = self.label_groups[group]
        return tuple(value for value in self.evaluated if self.class_names[value] not in seen)

    def structure(self, name: str) -> ClassSpec:
        """Looks a class up by name.

        Raises:
            ConfigError: no such class; the message lists those that exist.
        """
        by_name = {each.name: each for each in self.classes}
        if name not in by_name:
            raise ConfigError(f"structure {name!r}: unknown in {self.name}; expected one of {', '.join(by_name)}.")
        return by_name[name]

    # Folders and identity

    def prepared_folder(self, size_px: int | None = None) -> str:
        """The folder of the prepared scans, or of the images of a size, below the data root."""
        if self.kind == "scans":
            return self.prepared or f"{self.name}/prepared"
        return f"{self.name}/prepared_{size_px or self.grid.size_px}px"

    @property
    def n_folds(self) -> int:
        """Number of cross-validation folds."""
        return self.folds.number

    def to_dict(self) -> dict[str, Any]:
        """The description in plain values, for checkpoints and manifests; `from_dict` reads it."""
        return _plain({f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "DatasetSpec":
        """The description that `to_dict` wrote, or that a file holds.

        Raises:
            ConfigError: an unknown or missing key, a wrong type or an impossible value.
        """
        return build(cls, content)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of everything that can change a result; texts about the set do not count."""
        told = {"title", "source", "licence", "published", "files", "domains", "superpixels"}
        counted = {key: value for key, value in self.to_dict().items() if key not in told}
        for key, usual in (("in_plane_mm", None), ("field", "none")):  # descriptions from before there were these keys
            if counted["grid"][key] == usual:
                del counted["grid"][key]
        if not self.tasks:
            del counted["tasks"]
        return short_digest(counted)


def _require_path_part(key: str, text: str) -> None:
    """Checks a text that becomes the name of a folder or of files.

    Raises:
        ConfigError: it is unfit.
    """
    if reason := invalid_id_reason(text):
        raise ConfigError(f"{key}{text!r} {reason}.")


def read_description(path: Path) -> DatasetSpec:
    """Reads a `dataset.json5`.

    Raises:
        DataError: absent, unreadable or not JSON5.
        ConfigError: an unknown or missing key, a wrong type or an impossible value; the message names file and key.
    """
    draft = "Write a draft of a description with `frugalseg describe FOLDER --out FILE.json5`."
    content = read_json5(path, draft)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected {{name: ..., kind: ..., ...}}.")
    try:
        return DatasetSpec.from_dict(content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def write_description(folder: Path, spec: DatasetSpec) -> None:
    """Stores the description of prepared data in their folder, so that the folder needs no other file.

    The table of the files is left out: its paths hold for the place of the original description.
    """
    write_json(folder / FILE_NAME, replace(spec, files="").to_dict())


def _require_unique(what: str, values: list) -> None:
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise ConfigError(f"{what}={twice[0]!r} is given twice; expected different ones.")


def _plain(value: Any) -> Any:
    """Lists for tuples and dictionaries for dataclasses, at any depth."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return _plain(asdict(value)) if hasattr(value, "__dataclass_fields__") else value
