"""Slices of several domains: training batches of the sources, and the scans of the target that are scored."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from dataloaders.description import DatasetSpec
from dataloaders.io.geometry import Grid
from dataloaders.ordering import JointDataset, LoaderOptions, Part, step_loader
from dataloaders.protocol import TrainingData
from dataloaders.samples import ImageCase, JointBatch, StoredGeometry, Volume
from dataloaders.scans.folder import PreparedFolder
from dataloaders.scans.normalise import Normalisation
from dataloaders.sources.batches import Look, SourceDataset
from dataloaders.sources.config import SourcesDataConfig
from dataloaders.sources.division import Division, SourceScan, divide
from dataloaders.sources.frames import ScoredFrame, SliceRule
from dataloaders.sources.store import SliceStore, pack
from util.errors import DataError
from util.inventory import first_names
from util.records import hash_files
from util.schema import build

UNLABELLED = "unlabelled"  # what methods may need besides labelled slices


@dataclass(frozen=True)
class SourcesData(TrainingData):
    """A prepared folder of scans from several domains, divided for one configuration."""

    config: SourcesDataConfig
    folder: PreparedFolder
    division: Division
    needs: frozenset[str]  # of the method: labelled slices alone, or unlabelled ones, too
    labels = None  # are not refined

    @property
    def spec(self) -> DatasetSpec:
        """Description of the data set."""
        return self.folder.spec

    @property
    def preparation(self) -> dict[str, Any] | None:
        """How scans were prepared, and how slices are normalised, for the checkpoint."""
        rule = self.rule
        slices = {"percentiles": list(rule.percentiles), "crop_px": rule.crop_px, "reference": list(rule.reference)}
        return (self.folder.manifest.parameters.get("normalise") or {}) | {"slices": slices}

    @cached_property
    def rule(self) -> SliceRule:
        """How tested slices are normalised."""
        config = self.config
        reference = self._reference() if config.hist_match == "train+test" else ()
        return SliceRule(config.percentiles, config.input_px, reference)

    def _reference(self) -> tuple[float, ...]:
        """The mean quantiles of the slices of the first source domain: one reference, the same for every test slice."""
        store = self._store(self._first_domain, ())
        return tuple(float(value) for value in store.quantiles.mean(0))

    @property
    def _first_domain(self) -> tuple[str, ...]:
        first = self.division.sources[0]
        return tuple(scan for scan in self.division.unlabelled if self.folder.origin(scan).domain == first)

    def fit_normalisation(self) -> Normalisation:
        """Not used: slices are normalised one by one, see `rule`."""
        return Normalisation()

    def loader(
        self, normalisation: Normalisation, seed: int, batch_size: int, steps: range, options: LoaderOptions
    ) -> DataLoader[JointBatch]:
        """Makes a loader whose k-th batch belongs to the k-th of `steps`; every part has `batch_size` slices.

        Raises:
            DataError: a scan cannot be read, or has another size than configured.
        """
        store = self._store(self.division.unlabelled, self.division.labelled)
        if options.device is not None:
            store = store.on(options.device)
        look = Look.of(store, [self.folder.origin(scan).domain for scan in store.start], self.config)
        positions = {"labelled": self._labelled_slices(store)}
        if UNLABELLED in self.needs:
            pool = np.arange(0, len(store), self.config.unlabelled_stride)
            positions |= {"unlabelled_1": pool, "unlabelled_2": pool}
        parts = {
            name: SourceDataset(
                store, Part(drawn_from, batch_size, seed, options.plan, name), name == "labelled", look, self.config
            )
            for name, drawn_from in positions.items()
        }
        return step_loader(JointDataset(parts), steps, options)

    def _store(self, scans: tuple[str, ...], labelled: tuple[str, ...]) -> SliceStore:
        store = pack(
            self.folder, scans, labelled, self.config.percentiles, with_quantiles=self.config.hist_match != "none"
        )
        if store.side_px != self.config.side_px:
            raise DataError(
                f"{self.folder.folder}: slices of {store.side_px} px; expected {self.config.side_px}. Set size_px to "
                "what was prepared, or prepare the scans again."
            )
        return store

    def _labelled_slices(self, store: SliceStore) -> np.ndarray:
        """Positions of the slices of annotated frames of the labelled scans."""
        found = []
        for scan in self.division.labelled:
            record, length = self.scans[scan], int((store.scan == scan).sum())
            per_frame = length // record.n_frames
            frames = np.concatenate([np.arange(per_frame) + frame * per_frame for frame in sorted(record.phases)])
            found.append(store.start[scan] + frames)
        return np.concatenate(found)

    @cached_property
    def scans(self) -> dict[str, SourceScan]:
        """Id -> what is known of the scan."""
        return {scan.id: scan for scan in source_scans(self.folder)}

    def cases(self, scans: tuple[str, ...], rule: SliceRule | None = None) -> Iterator[Callable[[], list[ScoredFrame]]]:
        """For each of some labelled scans a function that reads its annotated frames.

        Args:
            scans: ids, such as `division.test`.
            rule: how slices are normalised; None: as for training on this folder.
        """
        for scan in scans:
            yield lambda scan=scan: self._frames(scan, rule or self.rule)

    def _frames(self, scan: str, rule: SliceRule) -> list[ScoredFrame]:
        record, stack, labels = self.scans[scan], self.folder.image(scan), self.folder.label(scan).array
        entry = self.folder.manifest.scans.get(scan, {})
        original = Grid.from_json(entry["original"]) if "original" in entry else None
        stored = build(StoredGeometry, entry["stored_geometry"]) if "stored_geometry" in entry else None
        truths = self.folder.original_label(scan)
        frames = []
        for frame, phase in sorted(record.phases.items()):
            image, truth = (_frame(each, frame, record.n_frames) for each in (stack.array, labels))
            whole = None if truths is None else _frame(truths, frame, record.n_frames)
            classes = tuple(range(1, len(self.spec.class_names)))
            case = ImageCase(tuple(f"{scan} {z}" for z in range(len(image))), classes, rule.apply(image))
            frames.append(
                ScoredFrame(
                    scan, phase, replace(self.folder.origin(scan), phase=phase), case, truth, self._scored(truth),
                    Volume(image, stack.affine), original, stored, whole,
                )
            )  # fmt: skip
        return frames

    def _scored(self, truth: np.ndarray) -> np.ndarray:
        """All slices; under the generic protocol those within the expert's outlines."""
        if self.config.protocol != "generic":
            return np.ones(len(truth), bool)
        shown, z = np.flatnonzero(truth.any((1, 2))), np.arange(len(truth))
        return (z >= shown[0]) & (z <= shown[-1]) if len(shown) else np.zeros(len(truth), bool)

    @property
    def nbytes(self) -> int:
        """Bytes of the slices on a device: an intensity of two bytes and a class value of one."""
        return 3 * sum(int(np.prod(self.folder.shape(scan))) for scan in self.division.unlabelled)

    def contents(self) -> dict[str, str]:
        """Images of the sources, labels in use, and the part, patient and domain of every scan."""
        division, folder = self.division, self.folder
        files = [folder.path("image", scan) for scan in division.unlabelled]
        files += [folder.path("label", scan) for scan in (*division.labelled, *division.development)]
        parts = {"unlabelled": division.unlabelled, "labelled": division.labelled}
        parts |= {"development": division.development, "test": division.test}
        table = {
            f"scan {scan}": f"{part}, {', '.join(folder.origin(scan).known().values())}"
            for part, members in parts.items()
            for scan in members
        }
        return hash_files(files, folder.folder) | table

    def trained_cases(self) -> dict[str, str]:
        """Scan -> patient, of all scans of the sources that are trained on, with or without labels."""
        return {scan: self.folder.origin(scan).patient for scan in self.division.unlabelled}

    def tested_cases(self) -> dict[str, str]:
        """Scan -> patient, of the labelled scans of the tested domains."""
        return {scan: self.folder.origin(scan).patient for scan in self.division.test}

    def describe(self) -> str:
        """Sources, target and the labelled patients, for the log."""
        chosen = "; ".join(f"{group}: {', '.join(members)}" for group, members in self.division.patients.items())
        count = sum(map(len, self.division.patients.values()))
        return (
            f"domains {', '.join(self.division.sources)}, tested on {', '.join(self.config.test_domains) or 'none'}; "
            f"{count} labelled patients ({chosen}) among {len(self.division.unlabelled)} scans"
        )


def source_scans(folder: PreparedFolder) -> list[SourceScan]:
    """The scans of a prepared folder, from its manifest and file names; none is opened."""
    found = []
    for scan in folder.scan_ids:
        entry, origin = folder.manifest.scans.get(scan, {}), folder.origin(scan)
        phases = {int(frame): str(phase) for frame, phase in entry.get("labelled_frames", {}).items()}
        if folder.records[scan].is_labelled and "frames" not in entry:
            phases = {0: origin.phase}
        found.append(SourceScan(scan, origin, phases, int(entry.get("frames", 1))))
    return found


def _frame(stack: np.ndarray, frame: int, n_frames: int) -> np.ndarray:
    length = len(stack) // n_frames
    return stack[frame * length : (frame + 1) * length]


def open_sources(
    config: SourcesDataConfig,
    data_dir: str,
    trains_on: str = "given",
    needs: frozenset[str] = frozenset(),
) -> SourcesData:
    """Opens a prepared folder and divides its scans.

    Args:
        config: names the data set and the domains.
        data_dir: the data root, or the prepared folder itself.
        trains_on: without effect here.
        needs: of the method; "unlabelled": slices without labels, too.

    Raises:
        DataError: nothing is prepared there, or a domain is missing or has no labelled patient.
    """
    root = Path(data_dir).expanduser()
    is_itself = any(root.glob("image_*.nii.gz"))
    folder = PreparedFolder(root if is_itself else root / config.spec.prepared_folder(), config.spec)
    division = divide(source_scans(folder), config, f"{folder.folder} ({first_names(folder.scan_ids)})")
    return SourcesData(config, folder, division, needs)
