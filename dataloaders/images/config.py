"""The configuration of training and testing on images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dataloaders import catalog
from dataloaders.description import DatasetSpec
from dataloaders.images.folder import NoiseConfig, SuperpixelConfig
from dataloaders.images.task import ImageTask
from dataloaders.protocol import DataConfig, DataFacts
from dataloaders.transforms import dense as augmentation
from util.errors import ConfigError
from util.schema import option


@dataclass(frozen=True)
class DenseConfig(DataConfig):
    """Training and test data of a run on images."""

    dataset: str = "ISIC2017"  # built-in name, description file or prepared folder; see dataloaders.catalog
    structures: tuple[str, ...] = ()  # to segment; several: classes, later over earlier; empty: the first
    size_px: int | None = None  # side of the prepared images; None: the data set's
    noise: NoiseConfig = option(NoiseConfig, "replicate")  # of the training masks
    superpixel: SuperpixelConfig = field(default_factory=SuperpixelConfig)  # for methods that need them
    which_aug: str = "nnunet"  # augmentation preset: nnunet, nnunet180, mirror_gamma or none
    aug: augmentation.DenseAugmentConfig = option(augmentation.DenseAugmentConfig)  # its ranges
    test_domains: tuple[str, ...] = option((), "replicate")  # tested on instead of the split `test`; not trained on
    diagnosed_images: int = option(200, "practical")  # training images scored in each evaluation; 0: none
    test_batch: int = option(8, "practical")  # images segmented together

    def __post_init__(self) -> None:
        if self.which_aug not in augmentation.DENSE_PRESETS:
            raise ConfigError(f"which_aug={self.which_aug!r}: expected one of {', '.join(augmentation.DENSE_PRESETS)}.")
        for name in self.chosen:
            self.spec.structure(name)
        if len(set(self.structures)) < len(self.structures):
            raise ConfigError(f"structures={list(self.structures)}: expected different ones.")
        if self.size_px is not None and self.size_px < 16:
            raise ConfigError(f"size_px={self.size_px}: expected 16 or more.")
        if self.diagnosed_images < 0 or self.test_batch < 1:
            raise ConfigError("expected diagnosed_images from 0 and test_batch from 1.")

    @property
    def spec(self) -> DatasetSpec:
        """The description of the data set."""
        return catalog.dataset(self.dataset, "images")

    @property
    def facts(self) -> DataFacts:
        """Channels, classes and size of what the network sees."""
        return DataFacts(self.spec.channels, len(self.chosen) + 1, self.shape)

    def derived(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The ranges of the augmentation."""
        return {"aug": asdict(augmentation.DENSE_PRESETS[self.which_aug])}

    @property
    def augmentation(self) -> augmentation.DenseAugmentConfig:
        """The ranges of the augmentation: those given, else those of the preset."""
        is_given = self.aug != augmentation.DenseAugmentConfig()
        return self.aug if is_given else augmentation.DENSE_PRESETS[self.which_aug]

    def on(self, dataset: str) -> "DenseConfig":
        """The same structures of another data set, prepared at the same size.

        Raises:
            ConfigError: it lacks one of the structures, or its images have another size or other channels.
        """
        other = replace(self, dataset=dataset, structures=self.chosen, size_px=self.side_px, test_domains=())
        if other.facts != self.facts:
            raise ConfigError(f"test_sets: {other.spec.name} has {other.facts}; the network was made for {self.facts}.")
        return other

    def summary(self, trains_on: str) -> str:
        """Structures, noise, and the domains that are kept for testing."""
        masks = "clean" if trains_on == "clean" or self.spec.masks == "trusted" else "given"
        is_noisy = self.noise.alpha and trains_on != "clean"
        held_out = f"_without-{'+'.join(self.test_domains)}" if self.test_domains else ""
        return f"{'+'.join(self.chosen)}_{self.noise.name if is_noisy else masks}{held_out}"

    @classmethod
    def ignored_keys(cls, values: Mapping[str, Any], trains_on: str) -> set[str]:
        """The noise, where clean masks are trained on."""
        return {"noise"} if trains_on == "clean" or not values.get("noise", {}).get("alpha") else set()

    @property
    def chosen(self) -> tuple[str, ...]:
        """The structures to segment; their places are the class values from 1."""
        return self.task.names

    @property
    def task(self) -> ImageTask:
        """What is segmented, and on which part of the prepared images."""
        return ImageTask(self.spec, self.structures, self.size_px)

    @property
    def side_px(self) -> int:
        """Rows and columns of the prepared images."""
        return self.task.side_px

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns that are used: a structure's own crop where it is learned alone."""
        return self.task.window

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the network's input."""
        rows, columns = self.window
        return rows.stop - rows.start, columns.stop - columns.start
