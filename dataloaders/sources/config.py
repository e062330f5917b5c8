"""The configuration of training on several sources, and of testing on another domain."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from dataloaders import catalog
from dataloaders.description import DatasetSpec
from dataloaders.protocol import DataConfig, DataFacts
from dataloaders.scans.folder import MULTIPLE_PX
from dataloaders.transforms.slices import SLICE_PRESETS, SliceAugmentConfig
from util.errors import ConfigError
from util.schema import check_bounds, option

ALL_DOMAINS = ("all",)  # as `test_domains`: every domain is tested, none trained on


@dataclass(frozen=True)
class SourcesDataConfig(DataConfig):
    """Domains, labelled patients, and how slices are normalised and augmented.

    Source: CACPS (AAAI 2022), section 4.1 and released code.
    """

    dataset: str = "MMS"  # a built-in set, or the path of a description whose table has a column domain
    test_domains: tuple[str, ...] = option((), "replicate")  # never seen in training
    train_domains: tuple[str, ...] = option((), "replicate")  # the sources; empty: all domains that are not tested
    labelled_fraction: float = option(0.02, gt=0, le=1)  # of the patients of each centre
    # which of a centre's n patients: the first ceil(n * fraction + 1), as released; the first ceil(n * fraction); or as
    # many at random
    selection: Literal["legacy", "ceil", "random"] = "ceil"
    selection_seed: int = option(0, "replicate", ge=0, le=2**32 - 1)  # of the random selection
    # generic: ceil(n * fraction) patients are drawn from all n of the sources together, and slices beyond the expert's
    # outlines are not scored
    protocol: Literal["epl", "generic"] = "epl"
    development_patients: int = option(0, ge=0)  # labelled patients of each domain that are kept for training curves
    unlabelled_stride: int = option(1, ge=1)  # every k-th slice of the sources is used without label
    size_px: int | None = option(None, ge=16)  # rows and columns of the prepared slices; None: the data set's
    crop_px: int | None = option(None, ge=16)  # rows and columns that the network sees; None: all
    percentiles: tuple[float, float] = (0.5, 99.5)  # of a slice, which become 0 and 1
    hist_match: Literal["none", "train", "train+test"] = "none"  # intensities matched to the first source domain
    partner: Literal["any", "other_domain"] = "any"  # whose amplitudes a slice may take on
    which_aug: str = "mms"  # augmentation preset: mms, scgm or none
    aug: SliceAugmentConfig = option(SliceAugmentConfig)  # its ranges

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.which_aug not in SLICE_PRESETS:
            raise ConfigError(f"which_aug={self.which_aug!r}: expected one of {', '.join(SLICE_PRESETS)}.")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ConfigError(f"percentiles={[low, high]}: expected two ascending numbers from 0 to 100.")
        both = sorted(set(self.test_domains) & set(self.train_domains))
        if both:
            raise ConfigError(
                f"test_domains and train_domains: {both[0]!r} is in both; expected a domain that is tested not to be "
                "seen in training. Remove it from one of them."
            )
        if self.crop_px is not None and self.crop_px > self.side_px:
            raise ConfigError(f"crop_px={self.crop_px}: larger than the prepared slices, {self.side_px} px.")
        if not self.spec.classes:
            raise ConfigError(f"dataset={self.dataset!r}: {self.spec.name} has no class to segment.")

    @property
    def spec(self) -> DatasetSpec:
        """Description of the data set."""
        return catalog.dataset(self.dataset, "scans")

    @property
    def side_px(self) -> int:
        """Rows and columns of the prepared slices, as they are read."""
        size_px = self.size_px or self.spec.grid.size_px
        return size_px - size_px % MULTIPLE_PX

    @property
    def input_px(self) -> int:
        """Rows and columns of the network's input."""
        return self.crop_px or self.side_px

    @property
    def facts(self) -> DataFacts:
        """One channel, all classes with the background, the crop."""
        return DataFacts(1, len(self.spec.class_names), (self.input_px, self.input_px))

    def derived(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The ranges of the augmentation."""
        return {"aug": asdict(SLICE_PRESETS[self.which_aug])}

    @property
    def augmentation(self) -> SliceAugmentConfig:
        """The ranges of the augmentation: those given, else those of the preset."""
        is_given = self.aug != SliceAugmentConfig()
        return self.aug if is_given else SLICE_PRESETS[self.which_aug]

    def on(self, dataset: str) -> "SourcesDataConfig":
        """All labelled scans of another data set with the same number of classes, prepared at the same size.

        Raises:
            ConfigError: it has other classes or another size.
        """
        other = replace(self, dataset=dataset, test_domains=ALL_DOMAINS, train_domains=())
        if other.facts != self.facts:
            raise ConfigError(f"test_sets: {other.spec.name} has {other.facts}; the network was made for {self.facts}.")
        return other

    def summary(self, trains_on: str) -> str:
        """Labelled share, and the domains that are kept for testing."""
        sources = f"{'+'.join(self.train_domains)}-" if self.train_domains else ""
        target = "+".join(self.test_domains) or "none"
        return f"{100 * self.labelled_fraction:g}percent_{self.selection}_{sources}to-{target}"
