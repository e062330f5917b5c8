"""The configuration of few-shot training and testing."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dataloaders import catalog, transforms
from dataloaders.description import ALL_GROUPS, DatasetSpec
from dataloaders.fewshot import protocol
from dataloaders.fewshot.propagated import RECORD, PropagatedFolder
from dataloaders.protocol import DataConfig, DataFacts
from dataloaders.transforms.scan_views import ScanViewConfig
from util.errors import ConfigError
from util.schema import check_bounds, option

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FewShotConfig(DataConfig):
    """Training data and test data; keys are named as in the reference where the meaning is the same."""

    dataset: str = "CHAOST2"  # a built-in set, or the path of a description; see dataloaders.catalog
    setting: Literal[1, 2] = 1  # 2: slices that show a tested organ are kept from training (paper, section 4.1)
    eval_fold: int = option(0, "replicate", ge=0)  # cross-validation fold, from 0
    label_sets: int | str = option(0, "replicate")  # label group to train on; the others are tested; "all": no group
    exclude_cls_list: tuple[int, ...] = option((), "replicate")  # training slices showing these are left out
    train_on: Literal["superpixels", "labels"] = "superpixels"  # labels: supervised training of the comparison methods
    # for methods that learn from label maps (self_training): the folder of those that were made of the training scans
    pseudo_labels: str = option("", "replicate")
    views: ScanViewConfig = option(ScanViewConfig)  # strength of the views of slices, likewise
    superpix_scale: str = "MIDDLE"  # which pseudo-labels
    min_size_px: int = option(64, "practical", ge=1)  # least side of prepared slices, for enough features
    max_iters_per_load: int | None = option(None, ge=1)  # episodes in one pass over the slices; None: every slice once
    min_fg_data: int = option(1, ge=1)  # pixels that a class needs on a training slice (train_on=labels)
    which_aug: str = "sabs_aug"  # augmentation preset: sabs_aug, aug_v3 or none
    aug: transforms.AugmentConfig = option(transforms.AugmentConfig)  # its ranges; those of `which_aug` if not given
    support_idx: tuple[int, ...] = option((-1,), "replicate")  # positions in the fold's held-out list
    n_sup_part: int = option(3, "practical", ge=1)  # parts along the organ, each with its own support slice; odd
    # slices beyond the organ's range that still count in protocol=reference
    z_margin: int = option(0, "practical", ge=0)
    protocol: Literal["reference", "blind", "both"] = option("both", "practical")  # how to score, see protocol.py
    nsd_tolerance_mm: float = option(3.0, "practical", gt=0)  # of the normalised surface Dice

    def __post_init__(self) -> None:
        check_bounds(self)
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
        if self.train_on == "labels" and not self.trained_classes:
            raise ConfigError(
                f"label_sets={self.label_sets!r} leaves no class to train on (train_on=labels); name a group of "
                "label_groups in the description."
            )

    @property
    def spec(self) -> DatasetSpec:
        """Description of the data set."""
        return catalog.dataset(self.dataset, "scans")

    @property
    def trained_classes(self) -> tuple[int, ...]:
        """Prepared values of the classes that annotated training sees: the scored ones that are not tested."""
        tested = self.spec.held_out(self.label_sets)
        return tuple(value for value in self.spec.evaluated if value not in tested)

    @property
    def facts(self) -> DataFacts:
        """What a network of fixed classes must fit; few-shot networks take any."""
        return DataFacts(1, len(self.spec.class_names), (self.spec.grid.size_px, self.spec.grid.size_px))

    @property
    def label_folder(self) -> PropagatedFolder | None:
        """The folder of the label maps; None: none is given."""
        return PropagatedFolder(Path(self.pseudo_labels).expanduser()) if self.pseudo_labels else None

    @property
    def identified(self) -> dict[str, str]:
        """Also the run that made the label maps."""
        maker = self.label_folder.maker if self.label_folder else ""
        return super().identified | ({"pseudo_labels": maker} if maker else {})

    @property
    def unidentified(self) -> str:
        """Whether the folder of the label maps holds none."""
        if self.label_folder is None or self.label_folder.maker:
            return ""
        return f"pseudo_labels={self.pseudo_labels!r} holds no {RECORD}, by which the run is found"

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

    def on(self, dataset: str) -> "FewShotConfig":
        """The same for another data set, of which all scored classes are tested."""
        return replace(self, dataset=dataset, label_sets=ALL_GROUPS, exclude_cls_list=())

    def summary(self, trains_on: str) -> str:
        """Setting, label group and fold."""
        return f"setting{self.setting}_sets{self.label_sets}_fold{self.eval_fold}"
