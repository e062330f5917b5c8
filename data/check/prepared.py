"""A prepared folder of scans as the rules of the check need it, and their findings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from data.check.facts import Facts, Readable
from dataloaders.description import DatasetSpec
from dataloaders.fewshot.folds import Fold, make_fold
from dataloaders.scans.folder import ScanRecord, command_target, prepare_command, scan_path
from dataloaders.scans.manifest import Manifest
from util.errors import DataError
from util.records import Record

Kind = TypeVar("Kind", bound=Readable)


@dataclass(frozen=True)
class Finding:
    """Something wrong ("error") or doubtful ("warning") about a file, and what to do about it."""

    severity: Literal["error", "warning"]
    file: Path
    text: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.file}: {self.text}"


@dataclass(frozen=True)
class Prepared:
    """A prepared folder, as far as the rules need it."""

    folder: Path
    spec: DatasetSpec
    scale: str | None  # of the pseudo-labels; None: not needed
    min_size_px: int
    manifest: Manifest
    facts: dict[str, dict[str, Facts]]  # "image", "label", "superpix-<scale>" -> scan id -> facts
    fold: Fold | None
    is_part: bool = False  # whether only some scans are looked at, so that what describes all of them is not

    def path(self, kind: str, scan: str) -> Path:
        """A scan's file of a kind."""
        return scan_path(self.folder, kind, scan)

    def needs_label(self, scan: str) -> bool:
        """Whether a scan must have a label: a published one, or one that had a label when it was prepared."""
        entry = self.manifest.scans.get(scan, {})
        return scan in self.spec.cases or ("original" in entry and entry.get("is_labelled", True))

    def record(self, name: str) -> Record | None:
        """What files of the folder were made from, see `Manifest.records`."""
        return self.manifest.records.get(name)

    def readable(self, kind: str, type_: type[Kind]) -> dict[str, Kind]:
        """The facts of those files of a kind that could be read."""
        return {scan: facts for scan, facts in self.facts[kind].items() if isinstance(facts, type_)}

    @property
    def superpix(self) -> str:
        """Kind of the pseudo-label files."""
        return f"superpix-{self.scale}"

    def command(self, step: str, option: str) -> str:
        """The remedy that runs a step on this folder again."""
        return f"Run `frugalseg {step} {command_target(self.folder, self.spec)} {option}`."

    @property
    def segment_again(self) -> str:
        """The remedy for pseudo-labels."""
        return self.command("superpixels", f"--scale {self.scale}")

    @property
    def prepare_command(self) -> str:
        """The command that prepares this folder, with its own parameters."""
        return prepare_command(self.spec, self.manifest)

    @property
    def prepare_again(self) -> str:
        """The remedy for images and labels."""
        return f"Copy a valid file there, or run `{self.prepare_command}` again."


def find_fold(
    folder: Path, spec: DatasetSpec, records: Mapping[str, ScanRecord], eval_fold: int, support_idx: Sequence[int]
) -> Fold | Finding:
    """The fold's scans, or the reason why there is no such fold."""
    try:
        return make_fold(spec, list(records), eval_fold, support_idx, records)
    except DataError as error:
        return Finding("error", folder, str(error))
