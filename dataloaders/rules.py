"""The parts of a data set's description that say how scans or images are prepared and divided."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from util.errors import ConfigError

STORED = "stored"  # in place of axis codes: slices, rows and columns stay as the file has them


@dataclass(frozen=True)
class GridRule:
    """The grid of prepared scans or images."""

    size_px: int = 256  # rows and columns
    spacing_mm: tuple[float, float, float] | None = None  # scans: (z, y, x); None: z stays, the plane becomes `size_px`
    in_plane_mm: float | None = None  # scans: size of a pixel; slices stay, rows and columns are cropped to `size_px`
    axis_codes: str = "LAS"  # scans: directions in which columns, rows and slices are counted; stored: as in the file
    border_fraction: float = 0.0  # scans: of rows and of columns, removed on each side before resampling
    aspect: Literal["squeeze", "pad"] = "squeeze"  # images that are not square: squeezed, or padded with zeros
    # images: the round field of view of fundus photographs is cut out and padded to a square; how it is found, see
    # dataloaders.images.field_of_view
    field: Literal["none", "largest", "legacy"] = "none"

    def __post_init__(self) -> None:
        if self.size_px < 16:
            raise ConfigError(f"size_px={self.size_px}: expected 16 or more.")
        if self.spacing_mm is not None and not all(0 < value < float("inf") for value in self.spacing_mm):
            raise ConfigError(f"spacing_mm={list(self.spacing_mm)}: expected three positive distances (z, y, x).")
        if self.in_plane_mm is not None and not 0 < self.in_plane_mm < float("inf"):
            raise ConfigError(f"in_plane_mm={self.in_plane_mm}: expected a positive distance.")
        if self.in_plane_mm is not None and self.spacing_mm is not None:
            raise ConfigError("spacing_mm and in_plane_mm: both given; expected one of them.")
        self._check_axes()
        if self.field != "none" and self.aspect != "pad":
            raise ConfigError(f"field={self.field!r}: the field of view is padded to a square; expected aspect='pad'.")
        if not 0 <= self.border_fraction < 0.5:
            raise ConfigError(f"border_fraction={self.border_fraction}: expected a fraction from 0, below 0.5.")

    def _check_axes(self) -> None:
        named = [axis for code in self.axis_codes for axis in ("LR", "PA", "IS") if code in axis]
        if self.axis_codes != STORED and (len(self.axis_codes) != 3 or len(set(named)) != 3):
            raise ConfigError(
                f"axis_codes={self.axis_codes!r}: expected one each of L/R, P/A and I/S, such as 'LAS', or {STORED!r}."
            )


@dataclass(frozen=True)
class IntensityRule:
    """How intensities are prepared and normalised.

    Source of the built-in values: SSL-ALPNet, released code: MR is clipped at the 99.5th percentile and normalised scan
    by scan; CT is windowed and normalised with statistics of the training scans.
    """

    clip_percentile: float | None = None  # of the scan; higher intensities are set to it; None: no clipping
    window: tuple[float, float] | None = None  # mapped to 0..255 and clipped there, CT: HU; None: intensities stay
    normalise_by: Literal["scan", "training_scans"] = "scan"  # whose mean and standard deviation
    inverted: bool = False  # images: bright and dark are exchanged

    def __post_init__(self) -> None:
        if self.clip_percentile is not None and not 0 < self.clip_percentile <= 100:
            raise ConfigError(f"clip_percentile={self.clip_percentile}: expected above 0, at most 100.")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ConfigError(f"window={list(self.window)}: expected the lower end first.")


@dataclass(frozen=True)
class FoldRule:
    """How labelled scans are divided into cross-validation folds. At most one of `starts` and `lists` is given."""

    number: int = 5
    starts: tuple[int, ...] = ()  # positions in the sorted ids of `cases` at which the folds' query scans begin and end
    lists: tuple[tuple[str, ...], ...] = ()  # ids of each fold's query scans

    def __post_init__(self) -> None:
        if self.starts and self.lists:
            raise ConfigError("starts and lists: both given; expected one of them.")
        if self.starts and (len(self.starts) != self.number + 1 or list(self.starts) != sorted(set(self.starts))):
            raise ConfigError(f"starts={list(self.starts)}: expected {self.number + 1} ascending positions.")
        if self.lists and len(self.lists) != self.number:
            raise ConfigError(f"lists: {len(self.lists)} given; expected number={self.number}.")
        if self.number < 1:
            raise ConfigError(f"number={self.number}: expected 1 or more.")


@dataclass(frozen=True)
class SplitRule:
    """How images are split where neither the table of files nor the source says; a patient is never divided.

    Scans are split so only where several partly labelled sets are trained on.
    """

    test: float = 0.25  # fraction of the patients
    validation: float = 0.0  # fraction of the patients, neither trained on nor tested
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.test < 1 and 0 <= self.validation < 1 and self.test + self.validation < 1):
            raise ConfigError(
                f"test={self.test}, validation={self.validation}: expected fractions with a sum below 1, test above 0."
            )

    def divide(self, patients: Mapping[str, str]) -> dict[str, str]:
        """Draws patients for testing and validation; the order of the cases is irrelevant.

        Args:
            patients: case -> patient; empty: the case is one of its own.

        Returns:
            Case -> train, validation or test.
        """
        own = {case: patient or case for case, patient in patients.items()}
        drawn = sorted(set(own.values()))
        random.Random(self.seed).shuffle(drawn)
        n_test = max(1, round(self.test * len(drawn)))
        n_validation = max(1, round(self.validation * len(drawn))) if self.validation else 0
        splits = dict.fromkeys(drawn, "train") | dict.fromkeys(drawn[n_test : n_test + n_validation], "validation")
        splits |= dict.fromkeys(drawn[:n_test], "test")
        return {case: splits[patient] for case, patient in own.items()}
