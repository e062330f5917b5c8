"""Few-shot segmentation of scans: training episodes, and the support set and query scans that are scored."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from dataloaders import transforms
from dataloaders.description import DatasetSpec
from dataloaders.fewshot import protocol
from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.episodes import ClassDrawer, Drawer, EpisodeDataset, PseudoClassDrawer, SliceStack
from dataloaders.fewshot.folds import Fold, make_fold
from dataloaders.fewshot.labelled import label_maps, labelled_loader, labelled_slices
from dataloaders.fewshot.slices import pack_slices
from dataloaders.ordering import LoaderOptions, step_loader
from dataloaders.protocol import TrainingData
from dataloaders.samples import PROPAGATED, EvalCase, SupportScan, SupportSet, Volume
from dataloaders.scans.folder import PreparedFolder
from dataloaders.scans.normalise import Normalisation
from util.errors import DataError
from util.records import hash_files
from util.runtime.compiling import CompiledFunction

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FewShotData(TrainingData):
    """A prepared folder of scans, and the scans of the fold.

    Attributes:
        learns_label_maps: whether what is trained on are the support scans with their labels, and the training scans
            with label maps that were made of them; else superpixels or labels of the training scans.
    """

    config: FewShotConfig
    folder: PreparedFolder
    fold: Fold
    learns_label_maps: bool = False
    labels = None  # pseudo-labels are not refined

    @property
    def spec(self) -> DatasetSpec:
        """Description of the data set; `to_dict` gives it in plain values for checkpoints."""
        return self.folder.spec

    @property
    def preparation(self) -> dict[str, Any] | None:
        """How the scans were prepared; None: unknown."""
        return self.folder.manifest.parameters.get("normalise")

    def fit_normalisation(self) -> Normalisation:
        """Computes the normalisation that the description asks for, from the training scans where needed."""
        return Normalisation.fit(self.spec, self.folder.statistics(self.fold.train))

    def loader(
        self, normalisation: Normalisation, seed: int, batch_size: int, steps: range, options: LoaderOptions
    ) -> DataLoader:
        """Makes a loader whose k-th batch belongs to the k-th of `steps`, for this process.

        Raises:
            DataError: no slice can be trained on.
        """
        if self.learns_label_maps:
            parts = labelled_slices(self.folder, self.fold, self.config, normalisation)
            return labelled_loader(parts, self.config, seed, batch_size, steps, options)
        stack, drawer = _training_slices(self, normalisation, seed)
        apply = transforms.apply
        if options.device is not None:
            stack = stack.on(options.device)
            apply = CompiledFunction(apply) if options.compiles else apply
        place, augmentation = options.plan, self.config.augmentation
        dataset = EpisodeDataset(stack, drawer, augmentation, seed, batch_size, place.rank, place.world_size, apply)
        return step_loader(dataset, steps, options)

    @property
    def learned_scans(self) -> tuple[str, ...]:
        """The scans that are trained on."""
        return (*self.fold.support, *self.fold.train) if self.learns_label_maps else self.fold.train

    @property
    def nbytes(self) -> int:
        """Bytes of the training slices on a device: intensities and ids of four bytes each."""
        voxels = sum(int(np.prod(self.folder.shape(scan))) for scan in self.learned_scans)
        return 8 * voxels

    def task(self, normalisation: Normalisation, which: protocol.Protocol) -> "FewShotTask":
        """The fold's support set and query scans under a protocol.

        "reference" gives each query slice the part that the query's ground truth assigns, and scores the slices of the
        organ's true range (with `z_margin`). "blind" reads no ground truth for the prediction, and scores every slice.

        Raises:
            DataError: no labelled scan or no class to score, or a support scan without one of the tested classes.
        """
        return _build_task(self, normalisation, which)

    def contents(self) -> dict[str, str]:
        """The fold's scans with their part and patient, their images, superpixels and labels, and the class index."""
        config, folder, fold = self.config, self.folder, self.fold
        parts = {"train": fold.train, "query": fold.query, "support": fold.support}
        scans = {scan: part for part, members in parts.items() for scan in members}
        files = [folder.path("image", scan) for scan in scans]
        files += [folder.path("label", scan) for scan, part in scans.items() if part != "train"]
        made = {}
        if self.learns_label_maps:
            made = label_maps(folder, fold, config).hashes(fold.train)
        else:
            kind = "label" if config.train_on == "labels" else f"superpix-{config.superpix_scale}"
            files += [folder.path(kind, scan) for scan in fold.train]
        thresholds = {1, config.min_fg_data} if config.train_on == "labels" else {1}
        files += [folder.folder / f"classmap_{least}.json" for least in sorted(thresholds)]
        table = {f"scan {scan}": f"{part}, {folder.origin(scan).patient}" for scan, part in scans.items()}
        return hash_files(files, folder.folder) | table | made

    def trained_cases(self) -> dict[str, str]:
        """Scan -> patient, of the scans that are trained on."""
        return {scan: self.folder.origin(scan).patient for scan in self.learned_scans}

    def tested_cases(self) -> dict[str, str]:
        """Scan -> patient, of the fold's query scans."""
        return {scan: self.folder.origin(scan).patient for scan in self.fold.query}

    def describe(self) -> str:
        """The training scans, for the log."""
        shown = f"scans {', '.join(self.fold.train)}"
        given = ", ".join(self.fold.support)
        return f"scan {given} with its labels, {shown} without" if self.learns_label_maps else shown


def open_fewshot(
    config: FewShotConfig, data_dir: str, trains_on: str = "given", needs: frozenset[str] = frozenset()
) -> FewShotData:
    """Opens the prepared folder and divides its scans.

    Args:
        config: names the data set and the fold.
        data_dir: the data root, or the prepared folder itself.
        trains_on: without effect here: `config.train_on` says it.
        needs: "propagated" if label maps are learned from.

    Raises:
        DataError: nothing prepared there, or too few scans for the fold.
    """
    root = Path(data_dir).expanduser()
    is_itself = any(root.glob("image_*.nii.gz"))
    folder = PreparedFolder(root if is_itself else root / config.spec.prepared_folder(), config.spec)
    fold = make_fold(config.spec, folder.scan_ids, config.eval_fold, config.support_idx, folder.records)
    return FewShotData(config, folder, fold, PROPAGATED in needs)


def _training_slices(data: FewShotData, normalisation: Normalisation, seed: int) -> tuple[SliceStack, Drawer]:
    config, use_labels = data.config, data.config.train_on == "labels"
    scans = _labelled_scans(data) if use_labels or config.exclude_cls_list else data.fold.train
    stack = pack_slices(data.folder, scans, None if use_labels else config.superpix_scale, normalisation)
    is_usable = ~_showing(data.folder, stack, config.exclude_cls_list)
    if not use_labels:
        return stack, PseudoClassDrawer(stack, is_usable, seed, config.max_iters_per_load)
    slices = {
        value: np.flatnonzero(is_usable & _showing(data.folder, stack, (value,), config.min_fg_data)).tolist()
        for value in config.trained_classes
    }
    return stack, ClassDrawer(slices, stack, seed)


def _labelled_scans(data: FewShotData) -> tuple[str, ...]:
    """The training scans of which it is known which slices show which class; the others are named in the log.

    Raises:
        DataError: there is none.
    """
    labelled = tuple(scan for scan in data.fold.train if data.folder.records[scan].is_labelled)
    others = [scan for scan in data.fold.train if scan not in labelled]
    reason = "training on labels" if data.config.train_on == "labels" else "excluding slices by class (setting 2)"
    if not labelled:
        raise DataError(
            f"{data.folder.folder}: no training scan of fold {data.config.eval_fold} has a label; expected some for "
            f"{reason}. Add labels, or train on superpixels with setting1."
        )
    if others:
        logger.warning("scans %s are not trained on: they have no label, needed for %s", ", ".join(others), reason)
    return labelled


def _showing(
    folder: PreparedFolder, stack: SliceStack, classes: tuple[int, ...], min_foreground_px: int = 1
) -> np.ndarray:
    """(D,) bool: slices of the stack on which any of `classes` is listed in the class index."""
    shows = np.zeros(len(stack.z), bool)
    index = folder.class_slices(min_foreground_px) if classes else {}
    for value in classes:
        for scan, slices in index[value].items():
            shows |= (stack.scan == scan) & np.isin(stack.z, slices)
    return shows


@dataclass(frozen=True)
class ScoredCase:
    """A case with its ground truth; the method is given `case` only."""

    case: EvalCase
    truth: np.ndarray  # (D, H, W) uint8 class values
    counts: np.ndarray  # (K, D) bool: slices that are scored for a class
    stored: Volume  # the image as stored, for pictures and geometry


@dataclass(frozen=True)
class FewShotTask:
    """A support set and the scans to segment with it, which are read one at a time."""

    support: SupportSet
    support_scans: tuple[str, ...]
    query_scans: tuple[str, ...]
    read_case: Callable[[str], ScoredCase]  # of a query scan; raises DataError where it cannot be read


def _build_task(data: FewShotData, normalisation: Normalisation, which: protocol.Protocol) -> FewShotTask:
    config, folder, fold = data.config, data.folder, data.fold
    classes = config.spec.held_out(config.label_sets)
    if not fold.query or not classes:
        missing = "no scan has a label" if classes else f"the description of {config.spec.name} has no scored class"
        raise DataError(
            f"{folder.folder}: nothing can be scored, as {missing}. Add classes and labels and prepare the scans "
            "again; training (setting1) and models.predict work without."
        )
    index = folder.class_slices(scans=fold.support)
    chosen = {  # (class, support scan) -> supporting slices
        (value, scan): _support_slices(folder, index, value, scan, config.n_sup_part)
        for value in classes
        for scan in fold.support
    }
    stored = {scan: folder.image(scan) for scan in fold.support}
    images = {scan: normalisation.apply(volume.array) for scan, volume in stored.items()}
    labels = {scan: folder.label(scan).array for scan in fold.support}
    image = np.stack([np.stack([images[s][chosen[v, s]] for s in fold.support], 1) for v in classes])  # K P S H W
    mask = np.stack([np.stack([labels[s][chosen[v, s]] == v for s in fold.support], 1) for v in classes])
    scans = tuple(
        SupportScan(
            torch.from_numpy(images[scan])[:, None],
            torch.from_numpy(labels[scan]),
            stored[scan].spacing_mm,
            torch.from_numpy(np.stack([chosen[value, scan] for value in classes])),
        )
        for scan in fold.support
    )
    support = SupportSet(classes, torch.from_numpy(image)[:, :, :, None], torch.from_numpy(mask), scans)
    first = fold.support[0]  # several shots: the first one's heights
    heights = [(chosen[value, first], len(images[first])) for value in classes]
    read_case = partial(_scored_case, data, normalisation, heights, which)
    return FewShotTask(support, fold.support, fold.query, read_case)


def _support_slices(folder: PreparedFolder, index: dict, value: int, scan: str, n_parts: int) -> np.ndarray:
    slices = index[value].get(scan, [])
    if not slices:
        raise DataError(
            f"{folder.folder}: support scan {scan} does not show {folder.spec.class_names[value]} (label {value}), "
            "which is to be segmented. Choose another support scan with support_idx, or another fold."
        )
    return protocol.support_slices(slices, n_parts)


def _scored_case(
    data: FewShotData,
    normalisation: Normalisation,
    heights: list[tuple[np.ndarray, int]],
    which: protocol.Protocol,
    scan: str,
) -> ScoredCase:
    config, folder = data.config, data.folder
    stored, truth = folder.image(scan), folder.label(scan).array
    classes, n_slices = config.spec.held_out(config.label_sets), len(truth)
    index = folder.class_slices(scans=[scan])
    parts, counts = [], []
    for value, (support_z, support_length) in zip(classes, heights, strict=True):
        shown = index[value].get(scan, [])
        if which == "blind" or not shown:
            parts.append(protocol.blind_parts(n_slices, support_z, support_length))
            counts.append(np.full(n_slices, which == "blind"))
        else:
            parts.append(protocol.reference_parts(n_slices, shown[0], shown[-1], config.n_sup_part))
            z = np.arange(n_slices)
            counts.append((z >= shown[0] - config.z_margin) & (z <= shown[-1] + config.z_margin))
    image = torch.from_numpy(normalisation.apply(stored.array))[:, None]
    part = torch.from_numpy(np.stack(parts))
    case = EvalCase(scan, classes, image, part, folder.origin(scan), stored.spacing_mm)
    return ScoredCase(case, truth, np.stack(counts), stored)
