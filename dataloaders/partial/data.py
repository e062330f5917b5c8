"""Several prepared sets of images, opened for one configuration: training batches and scored images."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from torch.utils.data import DataLoader

from dataloaders.description import DatasetSpec
from dataloaders.images.folder import MANIFEST, ImageFolder
from dataloaders.images.framing import Framing
from dataloaders.images.labels import image_tensor
from dataloaders.io.png import read_image, read_mask
from dataloaders.ordering import JointDataset, LoaderOptions, Part, step_loader
from dataloaders.partial.batches import PartialDataset, Stream
from dataloaders.partial.config import PartialDataConfig, known_row, to_unit
from dataloaders.partial.pseudo import EXPORT, PseudoLabelFolder, read_pseudo_label
from dataloaders.partial.separate import shared_images
from dataloaders.partial.store import PartialStore, pack_images, pack_masks
from dataloaders.partial.tasks import channels_of, known_channels
from dataloaders.protocol import TrainingData
from dataloaders.samples import ImageCase, JointBatch
from dataloaders.scans.normalise import Normalisation
from util.errors import ConfigError, DataError
from util.files import short_digest
from util.records import hash_files

LABELLED, PSEUDO, STRONG = "labelled", "pseudo", "strong"  # parts of a batch; the last two where a method needs them

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredImage:
    """An image with the expert's masks, on the grid of the prepared image.

    Attributes:
        case: a single image; its classes are all K of the network, numbered from 1.
        truth: masks of the channels that the data set is annotated for, in their order.
        inside: pixels within the field of view; None: all.
    """

    case: ImageCase
    truth: Bool[np.ndarray, "N H W"]
    inside: Bool[np.ndarray, "H W"] | None


@dataclass(frozen=True)
class PartialSet:
    """One of the data sets.

    Attributes:
        folder: its prepared images.
        known: channels that it is annotated for, ascending.
        names: class of every channel.
    """

    folder: ImageFolder
    known: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def spec(self) -> DatasetSpec:
        """Description of the data set."""
        return self.folder.spec

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.folder.spec.name

    def rows(self, split: str) -> list[dict[str, str]]:
        """Lines of the manifest of a split."""
        return [row for row in self.folder.rows if row["split"] == split]

    def mask_files(self, channel: int, ids: tuple[str, ...]) -> list[Path]:
        """The expert's masks of a channel."""
        return [self.folder.mask_path(image_id, self.names[channel]) for image_id in ids]

    def to_original(self, image_id: str, mask: np.ndarray) -> np.ndarray:
        """Takes a (H, W) mask on the prepared grid to the grid of the original picture; 0 outside what was cut out."""
        return Framing.from_row(self.folder.row(image_id), len(mask)).to_picture(mask)


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
    def preparation(self) -> None:
        """Nothing that the settings do not say."""
        return None

    def fit_normalisation(self) -> Normalisation:
        """Not used: mean and standard deviation of the channels are settings."""
        return Normalisation()

    def loader(
        self, normalisation: Normalisation, seed: int, batch_size: int, steps: range, options: LoaderOptions
    ) -> DataLoader[JointBatch]:
        """Makes a loader whose k-th batch belongs to the k-th of `steps`; `batch_size` images of each data set."""

        def dataset(name: str, known: Callable[[PartialSet], np.ndarray]) -> PartialDataset:
            streams = []
            for number, each in enumerate(self.trained):
                store = self._stores[name][each.name]
                store = store if options.device is None else store.on(options.device)
                part = Part(np.arange(len(store)), batch_size, seed, options.plan, f"{name}/{each.name}")
                streams.append(Stream(store, part, number, known(each)))
            return PartialDataset(streams, self.config, is_strong=name != LABELLED)

        parts = {LABELLED: dataset(LABELLED, self._annotated)}
        if PSEUDO in self.needs:
            parts[PSEUDO] = dataset(PSEUDO, self._pseudo_labelled)
        if STRONG in self.needs:
            parts[STRONG] = dataset(STRONG, lambda each: np.zeros(len(self.names), bool))
        return step_loader(JointDataset(parts), steps, options)

    @property
    def names(self) -> tuple[str, ...]:
        """Class of every channel."""
        return channels_of(self.config.task_list)

    def _annotated(self, each: PartialSet) -> np.ndarray:
        is_naive = self.config.missing == "background"
        return np.ones(len(self.names), bool) if is_naive else known_row(each.spec, self.config.task_list)

    def _pseudo_labelled(self, each: PartialSet) -> np.ndarray:
        return np.isin(self.names, self.pseudo_classes[each.name]) & ~known_row(each.spec, self.config.task_list)

    @cached_property
    def pseudo_labels(self) -> PseudoLabelFolder:
        """The folder of the pseudo-labels.

        Raises:
            ConfigError: none is given.
        """
        if not self.config.pseudo_labels:
            raise ConfigError(
                "pseudo_labels: none given; this method learns from those of a trained network. Make them with "
                f"{EXPORT} and set pseudo_labels to the folder that it names."
            )
        return PseudoLabelFolder(Path(self.config.pseudo_labels).expanduser())

    @cached_property
    def pseudo_classes(self) -> Mapping[str, tuple[str, ...]]:
        """Data set -> classes with pseudo-labels.

        Raises:
            ConfigError: none are given.
            DataError: they are missing, damaged, or of other images or tasks.
        """
        folders = {each.name: each.folder for each in self.trained}
        return self.pseudo_labels.require_for(self.config.task_list, folders)

    @cached_property
    def _stores(self) -> dict[str, dict[str, PartialStore]]:
        """Part of a batch -> data set -> its images and masks; all parts share the images."""
        stores: dict[str, dict[str, PartialStore]] = {}
        for each in self.trained:
            ids = each.folder.ids("train")
            image = pack_images(each.folder, ids, self.config.side_px, "train")
            masks = {
                k: pack_masks(each.folder, each.mask_files(k, ids), f"partial_{self.names[k]}_train")
                for k in each.known
            }
            stores.setdefault(LABELLED, {})[each.name] = PartialStore(image, masks)
            stores.setdefault(STRONG, {})[each.name] = PartialStore(image, {})
            if PSEUDO in self.needs:
                pseudo = {int(k): self._pseudo_masks(each, int(k)) for k in np.flatnonzero(self._pseudo_labelled(each))}
                stores.setdefault(PSEUDO, {})[each.name] = PartialStore(image, pseudo)
        return stores

    def _pseudo_masks(self, each: PartialSet, channel: int) -> np.ndarray:
        labels, name = self.pseudo_labels, self.names[channel]
        files = [labels.path(each.name, name, image_id) for image_id in each.folder.ids("train")]
        cache = f"pseudo_{name}_{short_digest({'folder': str(labels.folder.resolve())})}"
        return pack_masks(each.folder, files, cache, read_pseudo_label)

    @property
    def nbytes(self) -> int:
        """Memory of images and masks on a device."""
        wanted = [LABELLED, *(part for part in (PSEUDO, STRONG) if part in self.needs)]
        return sum(store.nbytes for part in wanted for store in self._stores[part].values())

    def contents(self) -> dict[str, str]:
        """Training images and their masks of every data set, and the pseudo-labels."""
        found: dict[str, str] = {}
        for each in self.trained:
            ids = each.folder.ids("train")
            files = [each.folder.image_path(image_id) for image_id in ids]
            files += [file for channel in each.known for file in each.mask_files(channel, ids)]
            hashes = hash_files(files, each.folder.folder)
            found |= {f"{each.name}/{name}": value for name, value in hashes.items()}
        return found | (self.pseudo_labels.hashes() if PSEUDO in self.needs else {})

    def trained_cases(self) -> dict[str, str]:
        """Training image -> patient, both with their data set."""
        return self._patients(self.trained, "train")

    def tested_cases(self) -> dict[str, str]:
        """Scored image -> patient, both with their data set."""
        return self._patients(self.scored, "test")

    def _patients(self, sets: tuple[PartialSet, ...], split: str) -> dict[str, str]:
        return {
            f"{each.name}/{image_id}": f"{each.name}/{each.folder.origin(image_id).patient}"
            for each in sets
            for image_id in each.folder.ids(split)
        }

    def describe(self) -> str:
        """Training images of each data set, for the log."""
        sets = (f"{len(each.folder.ids('train'))} of {each.name}" for each in self.trained)
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

    def cases(self, each: PartialSet, split: str = "test") -> Iterator[Callable[[], ScoredImage]]:
        """For each image of a split of a data set, in the order of `ids`, a function that reads it."""
        for image_id in each.folder.ids(split):
            yield lambda image_id=image_id: self._read(each, image_id)

    def _read(self, each: PartialSet, image_id: str) -> ScoredImage:
        folder, side = each.folder, self.config.side_px
        image = read_image(folder.image_path(image_id))
        if image.shape[:2] != (side, side):
            raise DataError(
                f"{folder.image_path(image_id)}: {image.shape[0]} x {image.shape[1]} px; expected {side} x {side}. Set "
                "size_px to what was prepared, or prepare the images again."
            )
        tensor = self.config.normalise(to_unit(image_tensor(image.reshape(1, side, side, -1))))
        origin = folder.origin(image_id)
        case = ImageCase((image_id,), tuple(range(1, len(self.names) + 1)), tensor, (origin,))
        truth = np.stack([read_mask(file) for file in (each.mask_files(k, (image_id,))[0] for k in each.known)])
        field = folder.field_path(image_id)
        return ScoredImage(case, truth, read_mask(field) if self.config.fov and field.exists() else None)


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

    def opened(spec: DatasetSpec) -> PartialSet:
        folder = ImageFolder.locate(spec, Path(data_dir), config.side_px)
        return PartialSet(folder, known_channels(spec, config.task_list), channels_of(config.task_list))

    trained = tuple(map(opened, config.trained))
    empty = next((each for each in trained if not each.folder.ids("train")), None)
    if empty is not None:
        raise DataError(
            f"{empty.folder.folder / MANIFEST}: no image in split 'train'. Prepare that part of {empty.name}."
        )
    chosen = tuple(map(opened, config.scored_specs)) or tuple(each for each in trained if each.folder.ids("test"))
    return PartialData(config, trained, chosen, needs)
