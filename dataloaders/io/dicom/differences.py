"""Several slices at one position: copies are left out, others are told apart by what differs."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations, groupby
from pathlib import Path

import numpy as np

from dataloaders.io.dicom.files import PIXEL_KEYWORDS, Skipped, split_command
from dataloaders.io.dicom.frame import Frame
from dataloaders.io.dicom.pixels import RESCALE
from dataloaders.io.dicom.planes import DicomSlice
from util.errors import DataError

SAME_POSITION_MM = 0.005
MOST_LISTED = 4  # values in a message
MOST_VALUES = 2  # of an attribute that tells scans apart, per slice at a position; times differ from slice to slice

# What a scanner varies between slices at one position, the most telling first. None of these identifies a patient.
DISTINCTIVE = (
    "EchoTime", "EffectiveEchoTime", "EchoNumbers", "InversionTime", "DiffusionBValue", "DiffusionGradientOrientation",
    "TemporalPositionIdentifier", "TemporalPositionIndex", "NominalPercentageOfCardiacPhase", "TriggerTime",
    "NominalCardiacTriggerDelayTime", "FlipAngle", "RepetitionTime", "ComplexImageComponent", "ImageType", "FrameType",
    "SequenceName", "ScanningSequence", "ContrastBolusAgent", "KVP", "ConvolutionKernel", "WindowCenter", "WindowWidth",
    "StackID", "AcquisitionNumber", "SeriesNumber",
)  # fmt: skip


def without_copies(folder: Path, slices: Sequence[DicomSlice]) -> tuple[list[DicomSlice], list[Skipped]]:
    """Leaves out copies of a slice: the same pixels at the same position, and nothing that tells them apart.

    Returns:
        One slice at each position, in the order given; and the copies.

    Raises:
        DataError: different slices at one position; it says which attribute tells them apart.
    """
    stacks = by_position(slices)
    copies = [
        each
        for stack in stacks
        for place, each in enumerate(stack)
        if any(_is_copy(each, one) for one in stack[:place])
    ]
    if not copies and max(map(len, stacks)) == 1:
        return list(slices), []
    kept = [each for each in slices if all(each is not copy for copy in copies)]
    stacks = by_position(kept)
    if max(map(len, stacks)) > 1:
        raise DataError(_explain(folder, kept, stacks))
    return kept, [Skipped(each.path, "copy of another slice") for each in copies]


def by_position(slices: Sequence[DicomSlice]) -> list[list[DicomSlice]]:
    """Groups parallel slices at the same place along their normal; in each group they stay in the order given."""
    normal = np.cross(*slices[0].axes)
    heights = np.array([normal @ each.position_mm for each in slices])
    order = np.argsort(heights, kind="stable")
    numbers = np.concatenate([[0], np.cumsum(np.diff(heights[order]) > SAME_POSITION_MM)])
    grouped = groupby(zip(numbers.tolist(), order.tolist(), strict=True), key=lambda pair: pair[0])
    return [[slices[place] for place in sorted(place for _, place in group)] for _, group in grouped]


def _is_copy(first: DicomSlice, second: DicomSlice) -> bool:
    if first.frame.index != second.frame.index:
        return False
    differs = any(first.frame.text(keyword) != second.frame.text(keyword) for keyword in (*RESCALE, *DISTINCTIVE))
    return not differs and _pixels(first.frame) == _pixels(second.frame)


def _pixels(frame: Frame) -> list[object]:
    return [frame.header[keyword].value for keyword in PIXEL_KEYWORDS if keyword in frame.header]


def telling_attributes(stacks: Sequence[Sequence[DicomSlice]]) -> tuple[str, ...]:
    """The attribute, or the two, that have another value for each slice at a position; empty if there are none.

    Args:
        stacks: slices by position.
    """
    most = max(map(len, stacks))
    texts = {keyword: [[each.frame.text(keyword) for each in stack] for stack in stacks] for keyword in DISTINCTIVE}
    varying = [key for key, each in texts.items() if any(len(set(values)) > 1 for values in each)]
    for keywords in (*combinations(varying, 1), *combinations(varying, 2)):
        rows = [list(zip(*(texts[key][place] for key in keywords), strict=True)) for place in range(len(stacks))]
        n_values = len({value for row in rows for value in row})
        if n_values <= MOST_VALUES * most and all(len(set(row)) == len(row) for row in rows):
            return keywords
    return ()


def _explain(folder: Path, slices: Sequence[DicomSlice], stacks: Sequence[Sequence[DicomSlice]]) -> str:
    sizes = set(map(len, stacks))
    found = f"{len(slices)} slices at {len(stacks)} positions, {'up to ' * (len(sizes) > 1)}{max(sizes)} at each"
    keywords = telling_attributes(stacks)
    if not keywords:
        stack = next(each for each in stacks if len(each) > 1)
        return (
            f"{folder}: {found}, such as {stack[0].name} and {stack[1].name}; expected one. Their pixels differ, but "
            "no attribute tells which belong together: export each scan (echo, phase, b-value) to a folder of its own."
        )
    by_value: dict[str, list[DicomSlice]] = defaultdict(list)
    for each in slices:
        by_value[" and ".join(each.frame.text(keyword) or "none" for keyword in keywords)].append(each)
    shown = [f"{value} ({len(several)} slices, e.g. {several[0].name})" for value, several in by_value.items()]
    rest = f" and {len(shown) - MOST_LISTED} more" if len(shown) > MOST_LISTED else ""
    remedy = (
        "export each to a folder of its own"
        if any(each.frame.groups for each in slices)
        else f"{split_command(folder, keywords)} copies each to a folder of its own"
    )
    return (
        f"{folder}: {found}; expected one. {' and '.join(keywords)} differ{'s' * (len(keywords) == 1)}: "
        f"{', '.join(shown[:MOST_LISTED])}{rest}. These are several scans: {remedy}; use the one that you need."
    )
