"""Several prepared sets of images, opened for one configuration: training batches and scored images."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from dataloaders.description import DatasetSpec
from dataloaders.images.folder import ImageFolder
from dataloaders.ordering import JointDataset, LoaderOptions, Part, step_loader
from dataloaders.partial.batches import PartialDataset, Stream
from dataloaders.partial.config import PartialDataConfig, known_row
from dataloaders.partial.pseudo import EXPORT, PseudoLabelFolder
from dataloaders.partial.separate import shared_images
from dataloaders.partial.sets import ImageSet, PartialSet, ScanSet, ScoredCase
from dataloaders.partial.store import Store
from dataloaders.partial.tasks import channels_of, known_channels
from dataloaders.protocol import TrainingData
from dataloaders.samples import JointBatch
from dataloaders.scans.folder import PreparedFolder
from dataloaders.scans.normalise import Normalisation
from util.errors import ConfigError, DataError

LABELLED, PSEUDO, STRONG = "labelled", "pseudo", "strong"  # parts of a batch; the last two where a method needs them

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartialData(TrainingData):
    """Prepared folders of several data sets.

    Attributes:
        trained: data sets that are trained on, in the order of their numbers.
        scored: data sets that are scored.
        needs: what batches contain besides labelled images: "pseudo" or "strong" views.
    """

    config: PartialDataConfig
    trained: tuple[PartialSet, ...]
    scored: tuple[PartialSet, ...]
    needs: frozenset[str]
    labels = None  # are not refined

    @property
    def preparation(self) -> dict[str, Any] | None:
        """Of scans how those of the first data set were prepared, and slices normalised, for the checkpoint."""
        first = self.trained[0]
        if not isinstance(first, ScanSet):
            return None
        rule = {"percentiles": list(first.rule.percentiles), "crop_px": first.rule.crop_px, "reference": []}
        return (first.folder.manifest.parameters.get("normalise") or {}) | {"slices": rule}

    def fit_normalisation(self) -> Normalisation:
        """Not used: mean and standard deviation of the channels are settings."""
        return Normalisation()

    def loader(
        self, normalisation: Normalisation, seed: int, batch_size: int, steps: range, options: LoaderOptions
    ) -> DataLoader[JointBatch]:
        """Makes a loader whose k-th batch belongs to the k-th of `steps`; `batch_size` images of each data set."""
        stores = self._stores if options.device is None else self._placed(options.device)

        def dataset(name: str, known: Callable[[PartialSet], np.ndarray]) -> PartialDataset:
            streams = []
            for number, each in enumerate(self.trained):
                store = stores[name][each.name]
                part = Part(np.arange(len(store)), batch_size, seed, options.plan, f"{name}/{each.name}")
                mirror_p = self._mirror_p[each.name] if name == LABELLED and self.config.align_side else None
                streams.append(Stream(store, part, number, known(each), mirror_p))
            return PartialDataset(streams, self.config, is_strong=name != LABELLED)

        known = {LABELLED: self._annotated, PSEUDO: self._pseudo_labelled, STRONG: self._unknown}
        return step_loader(JointDataset({name: dataset(name, known[name]) for name in self._parts}), steps, options)

    @property
    def names(self) -> tuple[str, ...]:
        """Class of every channel."""
        return channels_of(self.config.task_list)

    def _annotated(self, each: PartialSet) -> np.ndarray:
        is_naive = self.config.missing == "background"
        return np.ones(len(self.names), bool) if is_naive else known_row(each.spec, self.config.task_list)

    def _unknown(self, each: PartialSet) -> np.ndarray:
        return np.zeros(len(self.names), bool)

    def _pseudo_labelled(self, each: PartialSet) -> np.ndarray:
        return np.isin(self.names, self.pseudo_classes[each.name]) & ~known_row(each.spec, self.config.task_list)

    @cached_property
    def pseudo_labels(self) -> PseudoLabelFolder:
        """The folder of the pseudo-labels.

        Raises:
            ConfigError: none is given.
        """
        if self.config.label_folder is None:
            raise ConfigError(
                "pseudo_labels: none given; this method learns from those of a trained network. Make them with "
                f"{EXPORT} and set pseudo_labels to the folder that it names."
            )
        return self.config.label_folder

    @cached_property
    def pseudo_classes(self) -> Mapping[str, tuple[str, ...]]:
        """Data set -> classes with pseudo-labels.

        Raises:
            ConfigError: none are given.
            DataError: they are missing, damaged, or of other images or tasks.
        """
        images = {each.name: each.training_images() for each in self.trained}
        return self.pseudo_labels.require_for(self.config.task_list, images)

    @cached_property
    def _mirror_p(self) -> dict[str, np.ndarray]:
        """Data set -> of each training image, how probable it is that its columns are mirrored; see `align_side`."""
        name = self.config.align_side
        channel, chosen = self.names.index(name), {}
        for each in self.trained:
            found = [self._stores[part][each.name] for part in (LABELLED, PSEUDO) if part in self._stores]
            store = next((store for store in found if channel in store.channels), None)
            column = np.full(len(found[0]), np.nan) if store is None else store.mean_columns(channel)
            usual = self.config.augmentation.mirror_columns_p
            chosen[each.name] = np.where(np.isnan(column), usual, column > 0.5)
            log.info(
                "%s: %d of %d images have %s on the right and are mirrored in training; %d do not show it and are with "
                "probability %g.", each.name, (column > 0.5).sum(), len(column), name, np.isnan(column).sum(), usual,
            )  # fmt: skip
        return chosen

    @cached_property
    def _stores(self) -> dict[str, dict[str, Store]]:
        """Part of a batch -> data set -> its images and masks."""
        stores: dict[str, dict[str, Store]] = {part: {} for part in self._parts}
        for each in self.trained:
            stores[LABELLED][each.name] = each.store()
            if STRONG in stores:
                stores[STRONG][each.name] = each.store({})
            if PSEUDO in stores:
                channels = map(int, np.flatnonzero(self._pseudo_labelled(each)))
                files = {k: partial(self.pseudo_labels.path, each.name, self.names[k]) for k in channels}
                stores[PSEUDO][each.name] = each.store(files)
        return stores

    def _placed(self, device: torch.device) -> dict[str, dict[str, Store]]:
        """The stores on a device, where all parts of a batch share the images of a data set."""
        twins = {name: store.on(device) for name, store in self._stores[LABELLED].items()}
        return {
            part: twins if part == LABELLED else {name: store.on(device, twins[name]) for name, store in stores.items()}
            for part, stores in self._stores.items()
        }

    @property
    def _parts(self) -> tuple[str, ...]:
        return (LABELLED, *(part for part in (PSEUDO, STRONG) if part in self.needs))

    @property
    def nbytes(self) -> int:
        """Memory of images and masks on a device."""
        images = sum(store.image_nbytes for store in self._stores[LABELLED].values())
        return images + sum(store.code_nbytes for stores in self._stores.values() for store in stores.values())

    def contents(self) -> dict[str, str]:
        """Training images and their masks of every data set, and the pseudo-labels."""
        found = {f"{each.name}/{name}": value for each in self.trained for name, value in each.contents().items()}
        return found | (self.pseudo_labels.hashes() if PSEUDO in self.needs else {})

    def trained_cases(self) -> dict[str, str]:
        """Training image -> patient, both with their data set."""
        return self._patients(self.trained, "train")

    def tested_cases(self) -> dict[str, str]:
        """Scored image -> patient, both with their data set."""
        return self._patients(self.scored, "test")

    def _patients(self, sets: tuple[PartialSet, ...], split: str) -> dict[str, str]:
        return {
            f"{each.name}/{case}": f"{each.name}/{each.origin(case).patient}"
            for each in sets
            for case in each.ids(split)
        }

    def describe(self) -> str:
        """Training images of each data set, for the log."""
        sets = (f"{len(each.ids('train'))} of {each.name}" for each in self.trained)
        return f"images with some classes annotated ({', '.join(sets)}): {', '.join(self.names)}"

    def require_separate(self) -> None:
        """Checks that no scored image is trained on, in whatever data set; see `accept_shared_images`.

        Raises:
            DataError: one is.
        """
        trained = {each.name: each.rows("train") for each in self.trained}
        tested = {each.name: each.rows("test") for each in self.scored}
        shared = list(shared_images(trained, tested))
        if not shared:
            return
        pairs = "; ".join(f"{test} is {train}" for train, test in shared[:3])
        text = f"{len(shared)} scored image(s) are trained on ({pairs}); scores will be too good."
        if not self.config.accept_shared_images:
            raise DataError(f"{text} Leave one of the data sets out, or set accept_shared_images=true.")
        log.warning("%s", text)

    def cases(self, each: PartialSet, split: str = "test") -> Iterator[Callable[[], ScoredCase]]:
        """For each image or scan of a data set, in the order of `ids`, a function that reads it.

        Their images are normalised as the network's input.
        """
        for read in each.cases(split, self.config.fov):
            yield lambda read=read: self._normalised(read())

    def _normalised(self, found: ScoredCase) -> ScoredCase:
        return replace(found, case=replace(found.case, image=self.config.normalise(found.case.image)))


def open_partial(
    config: PartialDataConfig,
    data_dir: str,
    trains_on: str = "given",
    needs: frozenset[str] = frozenset(),
) -> PartialData:
    """Opens the prepared folders of a configuration.

    Args:
        config: names the data sets and the tasks.
        data_dir: the data root.
        trains_on: without effect here.
        needs: of the method, see `PartialData`.

    Raises:
        DataError: nothing is prepared there, or a data set has no training image.
    """
    opened = partial(_open, config, Path(data_dir).expanduser())
    trained = tuple(map(opened, config.trained))
    empty = next((each for each in trained if not each.ids("train")), None)
    if empty is not None:
        raise DataError(f"{empty.place}: nothing of {empty.name} is for training. Prepare that part, or leave it out.")
    chosen = tuple(map(opened, config.scored_specs)) or tuple(each for each in trained if each.ids("test"))
    return PartialData(config, trained, chosen, needs)


def _open(config: PartialDataConfig, root: Path, spec: DatasetSpec) -> PartialSet:
    known, names = known_channels(spec, config.task_list), channels_of(config.task_list)
    if spec.kind == "images":
        return ImageSet(spec, known, names, config.side_px, ImageFolder.locate(spec, root, config.side_px))
    folder = PreparedFolder(root / spec.prepared_folder(), spec)
    return ScanSet(spec, known, names, config.side_px, folder, config.slice_rule)
