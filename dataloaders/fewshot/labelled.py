"""Batches of labelled slices: some of the annotated scans, as many of scans with label maps that were propagated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.episodes import SliceStack
from dataloaders.fewshot.folds import Fold
from dataloaders.fewshot.propagated import COMMAND, PropagatedFolder
from dataloaders.fewshot.slices import pack_slices
from dataloaders.ordering import JointDataset, LoaderOptions, Part, step_loader
from dataloaders.samples import ANNOTATED, PROPAGATED, DenseBatch, JointBatch
from dataloaders.scans.folder import PreparedFolder
from dataloaders.scans.normalise import Normalisation
from dataloaders.transforms import scan_views
from dataloaders.transforms.scan_views import UNKNOWN, ScanViewConfig, to_input
from util.errors import ConfigError, DataError
from util.records import hash_files


@dataclass(frozen=True)
class LabelledSlices:
    """Slices with label maps, of which some classes are learned; all others count as background.

    Attributes:
        stack: the slices.
        classes: values that are learned.
    """

    stack: SliceStack
    classes: tuple[int, ...]

    def images(self, slices: Sequence[int]) -> Float[Tensor, "B 3 H W"]:
        """Input of the network: each slice between its neighbours; at the ends of a scan the slice itself."""
        place = self.stack.place
        last = len(place) - 1
        before = [each - 1 if each > 0 and place[each - 1] == place[each] else each for each in slices]
        after = [each + 1 if each < last and place[each + 1] == place[each] else each for each in slices]
        found = self.stack.images([*before, *slices, *after])
        return to_input(found[:, 0].unflatten(0, (3, len(slices))).transpose(0, 1))

    def labels(self, slices: Sequence[int]) -> UInt8[Tensor, "B H W"]:
        """The class values that are learned; 255: unknown."""
        given = self.stack.id_maps(slices)
        known = torch.zeros_like(given, dtype=torch.bool)
        for value in (*self.classes, UNKNOWN):
            known |= given == value
        return (given * known).to(torch.uint8)


class ViewDataset(Dataset[DenseBatch]):
    """Item k is one part of the batch of step k on this process: strong views of slices.

    Args:
        slices: to draw from.
        part: which of them, in which order.
        config: strength of the views.
        n_classes: with the background.
    """

    def __init__(self, slices: LabelledSlices, part: Part, config: ScanViewConfig, n_classes: int) -> None:
        self.slices, self.part, self.config, self.n_classes = slices, part, config, n_classes

    def __getitem__(self, step: int) -> DenseBatch:
        numbers = self.part.numbers(step)
        chosen = [self.part.item(number) for number in numbers]
        generators = [self.part.generator("augmentation", number) for number in numbers]
        image, label = self.slices.images(chosen), self.slices.labels(chosen)
        drawn = scan_views.draw(generators, self.config, self.n_classes).to(image.device)
        image, label = scan_views.apply(image, label, drawn)
        return DenseBatch(image, label.long())


def label_maps(folder: PreparedFolder, fold: Fold, config: FewShotConfig) -> PropagatedFolder:
    """The label maps of the fold's training scans, which are complete.

    Raises:
        ConfigError: none are given.
        DataError: they do not fit the scans, or there is no training scan.
    """
    if config.label_folder is None:
        raise ConfigError(
            "pseudo_labels: none given; this method learns from label maps of unlabelled scans. Make them with "
            f"{COMMAND} and set pseudo_labels to the folder that it names."
        )
    if not fold.train or not fold.support:
        kind = "unlabelled" if fold.support else "labelled"
        raise DataError(f"{folder.folder}: no {kind} scan in fold {config.eval_fold}; expected some of both.")
    config.label_folder.require_for(images_sha256(folder, fold), config.spec.held_out(config.label_sets))
    return config.label_folder


def images_sha256(folder: PreparedFolder, fold: Fold) -> dict[str, str]:
    """Training scan -> SHA-256 of its prepared image."""
    paths = {scan: folder.path("image", scan) for scan in fold.train}
    found = hash_files(list(paths.values()), folder.folder)
    return {scan: found[path.name] for scan, path in paths.items()}


def labelled_slices(
    folder: PreparedFolder, fold: Fold, config: FewShotConfig, normalisation: Normalisation
) -> dict[str, LabelledSlices]:
    """The parts of a batch: the support scans with their labels, the training scans with their label maps.

    Raises:
        ConfigError, DataError: see `label_maps`.
    """
    classes = config.spec.held_out(config.label_sets)
    given = pack_slices(folder, fold.support, None, normalisation)
    made = pack_slices(folder, fold.train, None, normalisation, label_maps(folder, fold, config))
    return {ANNOTATED: LabelledSlices(given, classes), PROPAGATED: LabelledSlices(made, classes)}


def labelled_loader(
    parts: Mapping[str, LabelledSlices],
    config: FewShotConfig,
    seed: int,
    batch_size: int,
    steps: range,
    options: LoaderOptions,
) -> DataLoader[JointBatch]:
    """A loader whose k-th batch belongs to the k-th of `steps`: every part has an equal share of it.

    Args:
        parts: name -> slices.
        config: strength of the views, and number of classes.
        seed: of the whole run.
        batch_size: slices of a step on this process, rounded up to a multiple of the number of parts.
        steps: of the run.
        options: how batches are made.
    """
    share = -(-batch_size // len(parts))
    datasets = {}
    for name, slices in parts.items():
        if options.device is not None:
            slices = LabelledSlices(slices.stack.on(options.device), slices.classes)
        part = Part(np.arange(len(slices.stack)), share, seed, options.plan, name)
        datasets[name] = ViewDataset(slices, part, config.views, config.facts.n_classes)
    return step_loader(JointDataset(datasets), steps, options)
