"""Few-shot segmentation of scans: what is trained on, and the support set and query scans that are scored."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader

from dataloaders import catalog, transforms
from dataloaders.description import DatasetSpec
from dataloaders.fewshot import protocol
from dataloaders.fewshot.episodes import ClassDrawer, Drawer, EpisodeDataset, PseudoClassDrawer, SliceStack
from dataloaders.fewshot.folds import Fold, make_fold
from dataloaders.fewshot.slices import pack_slices
from dataloaders.ordering import LoaderOptions, step_loader
from dataloaders.samples import Episode, EvalCase, SupportSet, Volume
from dataloaders.scans.folder import PreparedFolder
from dataloaders.scans.normalise import Normalisation
from util.errors import ConfigError, DataError
from util.runtime.compiling import CompiledFunction
from util.schema import option


@dataclass(frozen=True)
class FewShotConfig:
    """What is trained on and what is tested; names as in the reference where the meaning is the same."""

    dataset: str = "CHAOST2"  # see dataloaders.catalog
    setting: Literal[1, 2] = 1  # 2: slices that show a tested organ are kept from training (paper, section 4.1)
    eval_fold: int = option(0, "replicate")  # cross-validation fold, from 0
    label_sets: int | str = option(
        0, "replicate"
    )  # group to train on; the others are tested; "all": test every scored class
    exclude_cls_list: tuple[int, ...] = option((), "replicate")  # training slices showing these are left out
    train_on: Literal["superpixels", "labels"] = "superpixels"  # labels: annotated training of the comparison methods
    superpix_scale: str = "MIDDLE"  # which pseudo-labels
    max_iters_per_load: int | None = None  # episodes in one pass over the slices; None: every slice once
    min_fg_data: int = 1  # pixels below which a class does not count as shown (annotated training)
    which_aug: str = "sabs_aug"  # augmentation preset: sabs_aug, aug_v3 or none
    aug: transforms.AugmentConfig = option(transforms.AugmentConfig)  # its ranges; those of `which_aug` if not given
    support_idx: tuple[int, ...] = option((-1,), "replicate")  # positions in the fold's held-out list
    n_sup_part: int = option(3, "practical")  # parts along the organ, each with its own support slice; odd
    z_margin: int = option(0, "practical")  # slices beyond the organ's range that still count in protocol=reference
    protocol: Literal["reference", "blind", "both"] = option("both", "practical")  # how to score, see protocol.py
    nsd_tolerance_mm: float = option(3.0, "practical")  # of the normalised surface Dice

    def __post_init__(self) -> None:
        if self.which_aug not in transforms.PRESETS:
            raise ConfigError(f"which_aug={self.which_aug!r}: expected one of {', '.join(transforms.PRESETS)}.")
        self.spec.held_out(self.label_sets)
        protocol.part_fractions(self.n_sup_part)
        unknown = [value for value in self.exclude_cls_list if not 0 < value < len(self.spec.class_names)]
        if unknown:
            raise ConfigError(
                f"exclude_cls_list: {unknown} are no classes of {self.spec.name} (1 to "
                f"{len(self.spec.class_names) - 1})."
            )
        if self.train_on == "labels" and self.label_sets == "all":
            raise ConfigError("label_sets='all' leaves no class to train on (train_on=labels); name a group.")
        if self.z_margin < 0 or self.min_fg_data < 1:
            raise ConfigError("expected z_margin from 0 and min_fg_data from 1.")

    @property
    def spec(self) -> DatasetSpec:
        """The description of the data set."""
        return catalog.dataset(self.dataset, "scans")

    @property
    def facts(self) -> None:
        """A few-shot network takes slices of any size, and one class at a time."""
        return None

    def derived(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The length of a pass, the classes that setting 2 keeps from training, and the ranges of the augmentation."""
        excluded = list(self.spec.held_out(self.label_sets)) if self.setting == 2 else []
        return {
            "max_iters_per_load": self.spec.episodes_per_pass,
            "exclude_cls_list": excluded,
            "aug": asdict(transforms.PRESETS[self.which_aug]),
        }

    @property
    def augmentation(self) -> transforms.AugmentConfig:
        """The ranges of the augmentation: those given, else those of the preset."""
        is_given = self.aug != transforms.AugmentConfig()
        return self.aug if is_given else transforms.PRESETS[self.which_aug]

    def summary(self, trains_on: str) -> str:
        """Setting, label group and fold."""
        return f"setting{self.setting}_sets{self.label_sets}_fold{self.eval_fold}"

    @classmethod
    def ignored_keys(cls, values: Mapping[str, Any], trains_on: str) -> set[str]:
        """None: every key counts."""
        return set()


@dataclass(frozen=True)
class FewShotData:
    """A prepared folder of scans, and who is who in the fold."""

    config: FewShotConfig
    folder: PreparedFolder
    fold: Fold
    labels = None  # pseudo-labels are not refined

    @property
    def preparation(self) -> dict[str, Any] | None:
        """How the scans were prepared; None: unknown."""
        return self.folder.manifest.parameters.get("normalise")

    def fit_normalisation(self) -> Normalisation:
        """The data set's rule, with statistics of the training scans."""
        return Normalisation.fit(self.folder.spec, self.folder.statistics(self.fold.train))

    def loader(
        self, normalisation: Normalisation, seed: int, batch_size: int, steps: range, options: LoaderOptions
    ) -> DataLoader[Episode]:
        """A loader whose k-th batch belongs to the k-th of `steps`, for this process.

        Raises:
            DataError: no slice can be trained on.
        """
        stack, drawer = _training_slices(self, normalisation, seed)
        apply = transforms.apply
        if options.device is not None:
            stack = stack.on(options.device)
            apply = CompiledFunction(apply) if options.compiles else apply
        place, augmentation = options.plan, self.config.augmentation
        dataset = EpisodeDataset(stack, drawer, augmentation, seed, batch_size, place.rank, place.world_size, apply)
        return step_loader(dataset, steps, options)

    @property
    def nbytes(self) -> int:
        """What the training slices take on a device: intensities and ids of four bytes each."""
        voxels = sum(int(np.prod(self.folder.shape(scan))) for scan in self.fold.train)
        return 8 * voxels

    def task(self, normalisation: Normalisation, which: protocol.Protocol) -> "FewShotTask":
        """The fold's support set and query scans under a protocol.

        "reference" gives each query slice the part that the query's ground truth assigns, and counts the slices of the
        organ's true range (with `z_margin`). "blind" reads no ground truth for the prediction, and counts every slice.

        Raises:
            DataError: a support scan without one of the tested organs.
        """
        return _build_task(self, normalisation, which)

    def describe(self) -> str:
        """What is trained on, for the log."""
        return f"scans {list(self.fold.train)}"


def open_fewshot(
    config: FewShotConfig, data_dir: str, trains_on: str = "given", needs_superpixels: bool = False
) -> FewShotData:
    """The prepared folder and the scans of the fold.

    Args:
        config: names the data set and the fold.
        data_dir: the data root, or the prepared folder itself.
        trains_on: without effect here, as is `needs_superpixels`: `config.train_on` says both.
        needs_superpixels: see `trains_on`.

    Raises:
        DataError: nothing prepared there, or too few scans for the fold.
    """
    root = Path(data_dir).expanduser()
    is_itself = any(root.glob("image_*.nii.gz"))
    folder = PreparedFolder(root if is_itself else root / config.spec.prepared_folder(), config.spec)
    return FewShotData(config, folder, make_fold(config.spec, folder.scan_ids, config.eval_fold, config.support_idx))


def _training_slices(data: FewShotData, normalisation: Normalisation, seed: int) -> tuple[SliceStack, Drawer]:
    config, use_labels = data.config, data.config.train_on == "labels"
    stack = pack_slices(data.folder, data.fold.train, None if use_labels else config.superpix_scale, normalisation)
    is_usable = ~_showing(data.folder, stack, config.exclude_cls_list)
    if not use_labels:
        return stack, PseudoClassDrawer(stack, is_usable, seed, config.max_iters_per_load)
    allowed = set(config.spec.evaluated) - set(config.spec.held_out(config.label_sets))
    slices = {
        value: np.flatnonzero(is_usable & _showing(data.folder, stack, (value,), config.min_fg_data)).tolist()
        for value in allowed
    }
    return stack, ClassDrawer(slices, stack, seed)


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
    """A case with what its prediction is compared with; the method only ever sees `case`."""

    case: EvalCase
    truth: np.ndarray  # (D, H, W) uint8 class values
    counts: np.ndarray  # (K, D) bool: slices that enter the scores of a class
    stored: Volume  # the image as stored, for pictures and geometry


@dataclass(frozen=True)
class FewShotTask:
    """A support set and the scans to segment with it, read one at a time."""

    support: SupportSet
    support_scans: tuple[int, ...]
    query_scans: tuple[int, ...]
    cases: Iterator[ScoredCase]


def _build_task(data: FewShotData, normalisation: Normalisation, which: protocol.Protocol) -> FewShotTask:
    config, folder, fold = data.config, data.folder, data.fold
    classes = config.spec.held_out(config.label_sets)
    index = folder.class_slices()
    chosen = {  # (class, support scan) -> supporting slices
        (value, scan): _support_slices(folder, index, value, scan, config.n_sup_part)
        for value in classes
        for scan in fold.support
    }
    images = {scan: normalisation.apply(folder.image(scan).array) for scan in fold.support}
    labels = {scan: folder.label(scan).array for scan in fold.support}
    image = np.stack([np.stack([images[s][chosen[v, s]] for s in fold.support], 1) for v in classes])  # K P S H W
    mask = np.stack([np.stack([labels[s][chosen[v, s]] == v for s in fold.support], 1) for v in classes])
    support = SupportSet(classes, torch.from_numpy(image)[:, :, :, None], torch.from_numpy(mask))
    first = fold.support[0]  # several shots: the first one's heights
    heights = [(chosen[value, first], len(images[first])) for value in classes]
    cases = (_scored_case(data, normalisation, scan, index, heights, which) for scan in fold.query)
    return FewShotTask(support, fold.support, fold.query, cases)


def _support_slices(folder: PreparedFolder, index: dict, value: int, scan: int, n_parts: int) -> np.ndarray:
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
    scan: int,
    index: dict,
    heights: list[tuple[np.ndarray, int]],
    which: protocol.Protocol,
) -> ScoredCase:
    config, stored, truth = data.config, data.folder.image(scan), data.folder.label(scan).array
    classes, n_slices = config.spec.held_out(config.label_sets), len(truth)
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
    case = EvalCase(scan, classes, image, torch.from_numpy(np.stack(parts)))
    return ScoredCase(case, truth, np.stack(counts), stored)
