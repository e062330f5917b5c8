"""Everything the code knows about a data set by name: classes, label groups, folds. The only such place."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from util.errors import ConfigError

Spec = TypeVar("Spec")


@dataclass(frozen=True)
class DatasetSpec:
    """Facts about one data set of labelled volumes.

    Source: SSL-ALPNet (ECCV 2020), section 4.1, and its released code.
    """

    name: str
    modality: Literal["MR", "CT"]
    prepared_folder: str  # below the data root
    class_names: tuple[str, ...]  # index = label value; 0 is the background; the names written to classmap_*.json
    evaluated: tuple[int, ...]  # label values that the paper scores
    label_groups: tuple[tuple[int, ...], ...]  # `label_sets` -> classes that an annotated training may see
    fold_starts: tuple[int, ...]  # positions in the sorted scan ids at which the folds' queries begin and end
    scan_ids: tuple[int, ...]  # ids of the published data set, ascending
    foreground_above: float  # stored intensity above which a pixel may belong to the body (superpixel mask)
    spacing_mm: tuple[float, float, float] | None  # (z, y, x) of the prepared grid; None: see the data set's module
    size_px: int = 256  # rows and columns of the prepared grid
    passes_of: int | None = None  # episodes in one pass over the slices; None: every usable slice once

    def held_out(self, group: int | str) -> tuple[int, ...]:
        """Classes that are tested when `group` is trained on: the evaluated ones not in it; "all": all evaluated."""
        if group == "all":
            return self.evaluated
        if not isinstance(group, int) or not 0 <= group < len(self.label_groups):
            choices = [*range(len(self.label_groups)), "all"]
            raise ConfigError(f"label_sets={group!r}: unknown group of {self.name}; expected one of {choices}.")
        return tuple(label for label in self.evaluated if label not in self.label_groups[group])

    @property
    def n_folds(self) -> int:
        """Number of cross-validation folds."""
        return len(self.fold_starts) - 1


CHAOST2 = DatasetSpec(
    name="CHAOST2",
    modality="MR",
    prepared_folder="CHAOST2/chaos_MR_T2_normalized",
    class_names=("BG", "LIVER", "RK", "LK", "SPLEEN"),
    evaluated=(1, 2, 3, 4),
    label_groups=((1, 4), (2, 3)),
    fold_starts=(0, 4, 8, 12, 16, 20),
    scan_ids=(1, 2, 3, 5, 8, 10, 13, 15, 19, 20, 21, 22, 31, 32, 33, 34, 36, 37, 38, 39),
    foreground_above=50.0001,
    spacing_mm=(7.7, 1.25, 1.25),
    passes_of=1000,
)

SABS = DatasetSpec(
    name="SABS",
    modality="CT",
    prepared_folder="SABS/sabs_CT_normalized",
    class_names=(
        *("BGD", "SPLEEN", "KID_R", "KID_l", "GALLBLADDER", "ESOPHAGUS", "LIVER", "STOMACH"),
        *("AORTA", "IVC", "PS_VEIN", "PANCREAS", "AG_R", "AG_L"),
    ),
    evaluated=(1, 2, 3, 6),
    label_groups=((1, 6), (2, 3)),
    fold_starts=(0, 6, 12, 18, 24, 30),
    scan_ids=tuple(range(30)),
    foreground_above=1e-4,
    spacing_mm=None,
)

DATASETS = {"CHAOST2": CHAOST2, "SABS": SABS}


@dataclass(frozen=True)
class Structure:
    """One thing to be outlined on the images of a set.

    Source: released code of superpixel-guided learning (MICCAI 2021) and T-Loss (MICCAI 2023).
    """

    name: str
    noise_rotation_deg: float  # largest rotation of simulated affine noise
    n_segments: int  # superpixels asked for per image
    crop: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)  # first and last row, column; shares of the side

    def window(self, side_px: int) -> tuple[slice, slice]:
        """The rows and columns that are used of a square image where this structure is learnt alone."""
        top, bottom, left, right = (round(share * side_px) for share in self.crop)
        return slice(top, bottom), slice(left, right)


@dataclass(frozen=True)
class ImageSetSpec:
    """Facts about one data set of single images, with a binary mask per structure; the masks may overlap."""

    name: str
    channels: Literal[1, 3]
    structures: tuple[Structure, ...]
    size_px: int  # rows and columns of the prepared images
    n_published: dict[str, int]  # images per split: train, test

    def structure(self, name: str) -> Structure:
        """Looks a structure up by name.

        Raises:
            ConfigError: no such structure; the message lists those that exist.
        """
        by_name = {structure.name: structure for structure in self.structures}
        if name not in by_name:
            raise ConfigError(f"structure {name!r}: unknown in {self.name}; expected one of {', '.join(by_name)}.")
        return by_name[name]

    def prepared_folder(self, size_px: int | None = None) -> str:
        """Where the prepared images of a size lie, below the data root."""
        return f"{self.name}/prepared_{size_px or self.size_px}px"


ISIC2017 = ImageSetSpec(
    name="ISIC2017",
    channels=3,
    structures=(Structure("lesion", noise_rotation_deg=30.0, n_segments=100),),
    size_px=128,
    n_published={"train": 2000, "test": 600},
)

JSRT = ImageSetSpec(
    name="JSRT",
    channels=1,
    structures=(
        Structure("lung", noise_rotation_deg=15.0, n_segments=800),
        Structure("heart", noise_rotation_deg=15.0, n_segments=800),
        Structure("clavicle", noise_rotation_deg=2.0, n_segments=1200, crop=(0.0, 96 / 256, 24 / 256, 248 / 256)),
    ),
    size_px=256,
    n_published={"train": 197, "test": 50},
)

SHENZHEN = ImageSetSpec(
    name="SHENZHEN",
    channels=1,
    structures=(Structure("lung", noise_rotation_deg=30.0, n_segments=800),),
    size_px=256,
    n_published={"train": 396, "test": 170},
)

IMAGE_SETS = {"ISIC2017": ISIC2017, "JSRT": JSRT, "SHENZHEN": SHENZHEN}

# Spellings of the reference's configuration that mean the same data.
ALIASES = {"CHAOST2_Superpix": "CHAOST2", "SABS_Superpix": "SABS"}


def dataset(name: str) -> DatasetSpec:
    """Looks a data set of volumes up by name; either case and the reference's `..._Superpix` names are accepted.

    Raises:
        ConfigError: no such data set; the message lists those that exist.
    """
    return _look_up(name, DATASETS | {alias: DATASETS[key] for alias, key in ALIASES.items()}, DATASETS)


def image_set(name: str) -> ImageSetSpec:
    """Looks a set of single images up by name, in upper or lower case.

    Raises:
        ConfigError: no such set; the message lists those that exist.
    """
    return _look_up(name, IMAGE_SETS, IMAGE_SETS)


def _look_up(name: str, choices: Mapping[str, Spec], listed: Iterable[str]) -> Spec:
    by_lower = {key.lower(): spec for key, spec in choices.items()}
    if name.lower() not in by_lower:
        raise ConfigError(f"dataset={name!r}: unknown data set; expected one of {', '.join(listed)}.")
    return by_lower[name.lower()]
