"""Annotated scans of a person: which structures they show, and how they become a support set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float

from dataloaders.fewshot import protocol
from dataloaders.io.geometry import on_grid_of
from dataloaders.samples import SupportScan, SupportSet, Volume
from dataloaders.scans.brightness_profile import brightness_profile
from dataloaders.scans.labels import whole_values
from dataloaders.scans.preprocess import PrepareParameters, prepare_label
from models.prediction.raw_scans import check_array
from util.errors import ConfigError, DataError

MAX_STRUCTURES = 255  # of a label map
FEW_SLICES = 4  # annotated stretches shorter than so many slices of the network's grid are not resampled


@dataclass(frozen=True)
class Annotated:
    """An annotated scan.

    Attributes:
        image: raw; CT in Hounsfield units.
        label: label map on the image's grid; its axes may count in other directions. Values within 0.001 of a whole
            number are rounded.
        name: for messages.
    """

    image: Volume
    label: Volume
    name: str = "the annotated scan"


@dataclass(frozen=True)
class PreparedSupport:
    """An annotated scan on the network's grid.

    Attributes:
        image: normalised.
        number: (D, H, W) uint8, 1 to K for the structures.
        slices: K lists of P supporting slices; none for methods that compare whole scans.
    """

    image: Volume
    number: np.ndarray
    slices: tuple[list[int], ...]

    @cached_property
    def profile(self) -> Float[np.ndarray, "100"]:
        """How its brightness is distributed, see `brightness_profile`."""
        return brightness_profile(self.image.array)


def check_annotated(scan: Annotated) -> Annotated:
    """The same scan with whole label values.

    Raises:
        DataError: not a scan, or not a label map with something in it.
    """
    check_array(scan.image, "image")
    check_array(scan.label, "label map", kinds="biuf")
    label = Volume(whole_values(scan.label.array), scan.label.affine, scan.label.stored)
    found = np.unique(label.array)
    if found[0] < 0 or len(found) > MAX_STRUCTURES + 1:
        raise DataError(
            f"the label map contains {len(found)} values from {found[0]} to {found[-1]}; expected whole numbers, 0 "
            f"for the background and at most {MAX_STRUCTURES} structures. Is it an image?"
        )
    if found[-1] == 0:
        raise DataError("the label map is empty; expected at least one structure with a value above 0.")
    return replace(scan, label=label)


def choose_structures(
    scans: Sequence[Annotated], classes: Mapping[str, int] | Sequence[int] | None, name_of: Callable[[int], str]
) -> dict[str, int]:
    """Name -> label value of the structures to segment.

    Args:
        scans: checked ones.
        classes: label values to segment, or a name for each; None: all but 0.
        name_of: the name of a value that has no other.

    Raises:
        DataError: a structure that no label map shows.
        ConfigError: invalid classes.
    """
    present = sorted({int(value) for scan in scans for value in np.unique(scan.label.array) if value > 0})
    chosen = present if classes is None else classes
    structures = dict(chosen) if isinstance(chosen, Mapping) else {name_of(value): value for value in chosen}
    values = list(structures.values())
    if not values or min(values) < 1 or len(set(values)) < len(chosen):
        raise ConfigError(f"classes={classes}: expected different label values from 1.")
    absent = sorted(set(values) - set(present))
    if absent:
        names = ", ".join(scan.name for scan in scans)
        raise DataError(
            f"{names}: the label map contains the values {present}, not {absent}; choose classes from the former."
        )
    return structures


def number_structures(scan: Annotated, structures: Mapping[str, int], axis_codes: str) -> Volume:
    """The label map with 1 to K for the structures, on the reoriented image's grid.

    Raises:
        DataError: image and label map have different grids, or the scan shows none of the structures.
    """
    try:
        turned = on_grid_of(scan.image, scan.label, axis_codes)
    except DataError as error:
        raise DataError(f"the label map has {error}") from error
    number = np.zeros(turned.array.shape, np.uint8)
    for k, value in enumerate(structures.values(), start=1):
        number[turned.array == value] = k
    if not number.any():
        raise DataError(f"the label map shows none of {', '.join(structures)}. Leave this scan out, or annotate it.")
    return Volume(number, turned.affine)


def keep_slices(parameters: PrepareParameters, numbered: Volume) -> PrepareParameters:
    """The same parameters, but with the scan's own slices where only single ones or a few thin ones are annotated.

    Between an annotated slice and one that is not, resampling would lose the annotation.
    """
    if parameters.spacing_mm is None:
        return parameters
    between_mm, wanted_mm = numbered.spacing_mm[0], parameters.spacing_mm[0]
    shown = np.flatnonzero(numbered.array.any((1, 2)))
    is_whole = len(shown) == np.ptp(shown) + 1 and len(shown) * between_mm >= FEW_SLICES * wanted_mm
    if is_whole or between_mm >= wanted_mm:
        return parameters
    return replace(parameters, spacing_mm=(between_mm, *parameters.spacing_mm[1:]))


def prepare_numbers(numbered: Volume, parameters: PrepareParameters, structures: Mapping[str, int]) -> np.ndarray:
    """The numbered label map (D, H, W) on the network's grid.

    Raises:
        DataError: nothing is left of it.
    """
    number = prepare_label(numbered, parameters).array
    if not number.any():
        sizes = " x ".join(f"{size:.3g}" for size in parameters.spacing_mm or numbered.spacing_mm)
        raise DataError(
            f"nothing of {', '.join(structures)} is left in {parameters.size_px} x {parameters.size_px} px of {sizes} "
            "mm (z, y, x): too small, or outside. Crop the scan around the structures, or annotate more of them."
        )
    return number


def supporting_slices(number: np.ndarray, structures: Mapping[str, int], n_parts: int) -> tuple[list[int], ...]:
    """The slices that represent each structure.

    Raises:
        DataError: a structure on fewer slices.
    """
    chosen = []
    for k, name in enumerate(structures, start=1):
        shown = np.flatnonzero((number == k).any((1, 2)))
        if len(shown) < n_parts:
            raise DataError(
                f"the annotation shows {name} on {len(shown)} slices of the prepared scan; expected at least "
                f"{n_parts}. Annotate more slices, use fewer parts (an odd number), or leave this structure out."
            )
        chosen.append(protocol.support_slices(shown.tolist(), n_parts).tolist())
    return tuple(chosen)


def make_support_set(scans: Sequence[PreparedSupport], structures: Mapping[str, int]) -> SupportSet:
    """The support set; its classes are 1 to K, whatever the label values.

    Raises:
        DataError: preparation has removed a structure from all scans.
    """
    classes = tuple(range(1, len(structures) + 1))
    lost = [name for k, name in zip(classes, structures, strict=True) if not any((s.number == k).any() for s in scans)]
    if lost:
        raise DataError(
            f"{', '.join(lost)}: too small for the network's grid, or outside it. Crop the annotated scans around the "
            "structures, or leave these out."
        )
    whole = tuple(
        SupportScan(
            torch.from_numpy(scan.image.array)[:, None],
            torch.from_numpy(scan.number),
            scan.image.spacing_mm,
            torch.tensor(scan.slices or [[]] * len(structures), dtype=torch.int64),
        )
        for scan in scans
    )
    if not scans[0].slices:  # P = 0, as whole scans may have different sizes
        image, mask = torch.zeros(len(classes), 0, len(scans), 1, 1, 1), torch.zeros(len(classes), 0, len(scans), 1, 1)
        return SupportSet(classes, image, mask.bool(), whole)
    image = torch.stack([scan.image[scan.slices] for scan in whole], 2)  # (K, P, S, 1, H, W)
    number = torch.stack([scan.label[scan.slices] for scan in whole], 2)  # (K, P, S, H, W)
    return SupportSet(classes, image, number == torch.tensor(classes).view(-1, 1, 1, 1, 1), whole)
