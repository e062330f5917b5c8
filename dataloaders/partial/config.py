"""The configuration of training on several data sets, each annotated for some tasks only."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dataloaders import catalog
from dataloaders.description import DatasetSpec
from dataloaders.partial.pseudo import RECORD, PseudoLabelFolder
from dataloaders.partial.tasks import channels_of, join_specs, join_tasks, known_channels
from dataloaders.protocol import DataConfig, DataFacts
from dataloaders.samples import Task
from dataloaders.scans.folder import MULTIPLE_PX
from dataloaders.sources.frames import SliceRule
from dataloaders.transforms.views import VIEW_PRESETS, ViewConfig
from util.errors import ConfigError
from util.schema import check_bounds, option

# Of red, green and blue, 0 to 255. Source: PSSNet (Pattern Recognition 2024), released code.
FUNDUS_MEAN, FUNDUS_SD = (95.523, 57.776, 25.422), (58.273, 35.645, 16.790)
MAKER = ("pseudo_labels", "pseudo_labels_recipe")  # keys of the settings that say who made the pseudo-labels
GREY_MEAN, GREY_SD = (127.5,), (63.75,)  # not published


@dataclass(frozen=True)
class PartialDataConfig(DataConfig):
    """Data sets, tasks, and the views of images that a network sees.

    Images are fundus photographs or any others; of scans, the slices are the images.

    Source: PSSNet (Pattern Recognition 2024), released code.
    """

    # trained on: built-in names, descriptions or prepared folders; what they are annotated for is in their descriptions
    datasets: tuple[str, ...] = option(("RETA", "DDR", "REFUGE"), "practical")  # a run is found by what is in them
    tasks: tuple[str, ...] = ()  # that are learned; empty: all that the data sets are annotated for
    # scored in validation; empty: those that are trained on and have test images
    scored: tuple[str, ...] = option((), "practical")
    tested: str = option("", "practical")  # one of `test_sets`, in place of `scored`
    missing: Literal["unknown", "background"] = "unknown"  # what an image shows of classes that it is not annotated for
    # folder that `frugalseg pseudo-labels` wrote, for methods that learn from them; a run is found by its record
    pseudo_labels: str = option("", "replicate")
    size_px: int | None = option(None, ge=16)  # side of the prepared images; None: that of the first data set
    crop_px: int | None = option(None, ge=16)  # side of the views in training; None: half of the prepared side
    which_aug: str = "fundus"  # views: fundus, slices or none
    aug: ViewConfig = option(ViewConfig)  # its ranges
    # class that annotated views have in their left half: those with it in the right half are mirrored, others are not,
    # by its masks or pseudo-labels; images that do not show it are mirrored at random. Empty: all are
    align_side: str = ""
    percentiles: tuple[float, float] = (0.5, 99.5)  # scans: of a slice, which become 0 and 255
    mean: tuple[float, ...] = ()  # of each channel, 0 to 255, subtracted; empty: of fundus photographs, for grey 127.5
    sd: tuple[float, ...] = ()  # by which it is divided; empty: likewise, for grey 63.75
    fov: bool = option(True, "practical")  # scores of pixels within the field of view; False: of all, as released
    accept_shared_images: bool = option(False, "practical")  # score although a tested image is trained on elsewhere

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.datasets:
            raise ConfigError("datasets=[]: expected at least one data set.")
        if self.which_aug not in VIEW_PRESETS:
            raise ConfigError(f"which_aug={self.which_aug!r}: expected one of {', '.join(VIEW_PRESETS)}.")
        if self.align_side and self.align_side not in channels_of(self.task_list):
            raise ConfigError(
                f"align_side={self.align_side!r}: expected one of {', '.join(channels_of(self.task_list))}."
            )
        names = [spec.name for spec in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"datasets={list(self.datasets)}: {twice[0]} is given twice; expected different ones.")
        channels = self.joined.channels
        for key, values in (("mean", self.mean), ("sd", self.sd)):
            if values and len(values) != channels:
                raise ConfigError(f"{key}={list(values)}: {len(values)} numbers; expected {channels}, one per channel.")
        if any(value <= 0 for value in self.sd):
            raise ConfigError(f"sd={list(self.sd)}: expected numbers above 0.")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ConfigError(f"percentiles={[low, high]}: expected two ascending numbers from 0 to 100.")
        if self.input_px > 8 * self.side_px:
            raise ConfigError(f"crop_px={self.crop_px}: more than eight times the prepared side of {self.side_px} px.")
        for spec in self.scored_specs:
            self._check_scored(spec)

    def _check_scored(self, spec: DatasetSpec) -> None:
        key = "test_sets" if self.tested else "scored"
        if not known_channels(spec, self.task_list):
            raise ConfigError(
                f"{key}: {spec.name} is annotated for {', '.join(spec.class_names[1:])}; the network segments "
                f"{', '.join(channels_of(self.task_list))}. Choose a set with some of these classes."
            )
        kinds = [f"{each.kind} of {each.channels} channel(s)" for each in (spec, self.joined)]
        if kinds[0] != kinds[1]:
            raise ConfigError(f"{key}: {spec.name} is a set of {kinds[0]}; the network was made for {kinds[1]}.")

    @cached_property
    def sources(self) -> tuple[DatasetSpec, ...]:
        """Descriptions of the data sets that are trained on."""
        return tuple(map(catalog.dataset, self.datasets))

    @cached_property
    def trained(self) -> tuple[DatasetSpec, ...]:
        """Those that are annotated for at least one of the learned tasks."""
        return tuple(spec for spec in self.sources if known_channels(spec, self.task_list))

    @cached_property
    def task_list(self) -> tuple[Task, ...]:
        """The learned tasks, in the order of the network's outputs."""
        return join_tasks(self.sources, self.tasks)

    @cached_property
    def joined(self) -> DatasetSpec:
        """One description of all data sets that are trained on, at the size of the prepared images."""
        joined = join_specs(self.trained, self.task_list)
        return replace(joined, grid=replace(joined.grid, size_px=self.side_px))

    @cached_property
    def scored_specs(self) -> tuple[DatasetSpec, ...]:
        """Descriptions of the data sets that are chosen to be scored; empty: none was chosen."""
        return tuple(map(catalog.dataset, (self.tested,) if self.tested else self.scored))

    @property
    def spec(self) -> DatasetSpec:
        """One description of all data sets that are trained on; of one of `test_sets` its own."""
        return self.scored_specs[0] if self.tested else self.joined

    @property
    def side_px(self) -> int:
        """Rows and columns of the prepared images, or of the slices as they are read."""
        size_px = self.size_px or self.sources[0].grid.size_px
        return size_px - size_px % MULTIPLE_PX if self.sources[0].kind == "scans" else size_px

    @property
    def slice_rule(self) -> SliceRule:
        """How slices of scans become images."""
        return SliceRule(self.percentiles, self.side_px)

    @property
    def input_px(self) -> int:
        """Rows and columns of the views in training."""
        return self.crop_px or self.side_px // 2

    @property
    def facts(self) -> DataFacts:
        """Channels, classes, tasks and data sets."""
        n_classes, shape = len(channels_of(self.task_list)), (self.input_px, self.input_px)
        return DataFacts(self.joined.channels, n_classes, shape, self.task_list, tuple(s.name for s in self.trained))

    def derived(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The ranges of the augmentation, and the intensities of images."""
        mean, sd = self.intensities
        return {"aug": asdict(VIEW_PRESETS[self.which_aug]), "mean": list(mean), "sd": list(sd)}

    @property
    def intensities(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel."""
        is_grey = self.joined.channels == 1
        return self.mean or (GREY_MEAN if is_grey else FUNDUS_MEAN), self.sd or (GREY_SD if is_grey else FUNDUS_SD)

    @property
    def augmentation(self) -> ViewConfig:
        """The ranges of the augmentation: those given, else those of the preset."""
        return self.aug if self.aug != ViewConfig() else VIEW_PRESETS[self.which_aug]

    def normalise(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Network input from intensities 0 to 1."""
        return standardise(image, *self.intensities)

    def on(self, dataset: str) -> "PartialDataConfig":
        """The test images of another data set, prepared at the same size.

        Raises:
            ConfigError: it is annotated for none of the classes, has other channels, or is scored already.
        """
        own = self.scored_specs or self.trained
        if catalog.dataset(dataset).name in [spec.name for spec in own]:
            raise ConfigError(f"test_sets: {dataset} is scored already. Leave it out.")
        return replace(self, tested=dataset, size_px=self.side_px)

    @property
    def label_folder(self) -> PseudoLabelFolder | None:
        """The folder of the pseudo-labels; None: none is given."""
        return PseudoLabelFolder(Path(self.pseudo_labels).expanduser()) if self.pseudo_labels else None

    @property
    def identified(self) -> dict[str, str]:
        """Also the run that made the pseudo-labels, and a digest of how."""
        maker = self.label_folder.maker if self.label_folder else None
        return super().identified | ({} if maker is None else dict(zip(MAKER, maker, strict=True)))

    @property
    def unidentified(self) -> str:
        """Whether the folder of the pseudo-labels holds none."""
        if self.label_folder is None or self.label_folder.maker:
            return ""
        return f"pseudo_labels={self.pseudo_labels!r} holds no {RECORD}, by which the run is found"

    def summary(self, trains_on: str) -> str:
        """The tasks."""
        naive = "_missing-as-background" if self.missing == "background" else ""
        return "+".join(task.name for task in self.task_list) + naive


def standardise(
    image: Float[Tensor, "B C H W"], mean: tuple[float, ...], sd: tuple[float, ...]
) -> Float[Tensor, "B C H W"]:
    """Subtracts the mean of each channel and divides by its standard deviation, both for 0 to 255; image: 0 to 1."""
    shift, scale = (torch.tensor(each)[:, None, None].to(image.device, non_blocking=True) for each in (mean, sd))
    return (image * 255 - shift) / scale


def known_row(spec: DatasetSpec, tasks: tuple[Task, ...]) -> np.ndarray:
    """(K,) bool: the channels that a data set is annotated for."""
    known = np.zeros(len(channels_of(tasks)), bool)
    known[list(known_channels(spec, tasks))] = True
    return known
