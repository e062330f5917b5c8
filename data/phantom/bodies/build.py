"""The build of a patient: how much fat lies where, size, and the width of the image."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from util.schema import check_bounds, option

KIDNEY_BED_MM = 10.0  # fat behind the middle of a kidney in a patient of standard build, on average

MUSCLES_WIDTH_MM = 291.0  # mean width of the trunk without subcutaneous fat


@dataclass(frozen=True)
class Build:
    """A build; in mm, up to the random proportions of each patient (9 %).

    Fat moves the outline and the organs, which keep their size: the organs and the front of the body move forward by
    what the fat behind the kidneys exceeds `KIDNEY_BED_MM`, and the wall moves away from the organs by `visceral_mm`.

    Raises:
        ConfigError: a number is out of range.
    """

    side_mm: float = option(16.0, ge=3, le=120)  # subcutaneous fat with the skin, at either side
    front_mm: float = option(18.0, ge=3, le=120)
    back_mm: float = option(18.0, ge=3, le=120)
    perirenal_mm: float = option(KIDNEY_BED_MM, ge=KIDNEY_BED_MM, le=80)  # fat behind the kidneys
    visceral_mm: float = option(0.0, ge=0, le=50)  # fat between the organs and the wall, at the sides and in front
    scale: float = option(1.0, ge=0.7, le=1.4)  # of everything but fat
    # width and height of the image; None: those for a standard build, or more where the body is wider
    field_mm: float | None = option(None, ge=150, le=900)

    def __post_init__(self) -> None:
        check_bounds(self)

    @property
    def forward_mm(self) -> float:
        """By how much the organs lie further in front than in a patient of standard build, at scale 1."""
        return max(0.0, self.perirenal_mm / self.scale - KIDNEY_BED_MM)

    @property
    def width_mm(self) -> float:
        """Width of the body with average proportions."""
        return MUSCLES_WIDTH_MM * self.scale + 2 * (self.side_mm + self.visceral_mm)

    def field(self, usual_mm: float) -> float:
        """Width and height of the image, given those for a standard build."""
        return max(usual_mm, 1.15 * self.width_mm) if self.field_mm is None else self.field_mm


BUILDS = ("standard", "varied")
BuildChoice = Build | Literal["standard", "varied"]


def draw_build(rng: np.random.Generator) -> Build:
    """A build between lean and very obese; who has more fat has more of it everywhere, but unevenly."""
    fatness = rng.uniform()
    side, front, back, perirenal, visceral = fatness * rng.uniform(0.2, 1.2, 5) * (60, 45, 80, 55, 15)
    scale = float(np.clip(rng.normal(1, 0.06), 0.85, 1.15))
    build = Build(4 + side, 4 + front, 4 + back, KIDNEY_BED_MM + perirenal, visceral, scale)
    return replace(build, field_mm=build.width_mm * rng.uniform(1.05, 1.3))
