"""Label maps and facts of scans of one or several frames, which are stacked along z."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from data.sources.raw_scans import RawScan
from dataloaders.io.geometry import Grid, paste_back
from dataloaders.samples import Cine, Volume
from dataloaders.scans.manifest import statistics_of
from dataloaders.scans.preprocess import PrepareParameters, prepare_label


def frame_settings(scan: RawScan) -> dict[str, Any]:
    """Which frames have a label; a cine scan is prepared again when that changes."""
    return {"labelled_frames": _by_text(scan.frames)} if scan.frames else {}


def _by_text(frames: Mapping[int, str]) -> dict[str, str]:
    return {str(frame): phase for frame, phase in sorted(frames.items())}


def prepare_labels(cine: Cine, shape: tuple[int, ...], parameters: PrepareParameters) -> np.ndarray:
    """The label maps of the annotated frames, one after the other along z; 0 in other frames."""
    label = np.zeros(shape, np.uint8)
    depth = shape[0] // len(cine.frames)
    for frame, volume in cine.labels.items():
        label[frame * depth : (frame + 1) * depth] = prepare_label(volume, parameters).array
    return label


def original_labels(cine: Cine) -> Volume:
    """The same on the grid of the scan before preparation."""
    frame = cine.frames[0]
    depth, *plane = frame.array.shape
    label = np.zeros((depth * len(cine.frames), *plane), np.uint8)
    for number, volume in cine.labels.items():
        pasted = paste_back(volume, frame.array.shape, frame.affine, "nearest")
        label[number * depth : (number + 1) * depth] = pasted.array
    return Volume(label, frame.affine)


def facts_of(scan: RawScan, cine: Cine, image: Volume) -> dict[str, Any]:
    """The scan's entry of the manifest; grids are those of one frame."""
    original, n_frames = cine.frames[0], len(cine.frames)
    depth, height, width = image.array.shape
    is_cine = n_frames > 1 or bool(scan.frames)
    return {
        "original": Grid.of(original).to_json(),
        **({} if original.stored is None else {"stored_geometry": asdict(original.stored)}),
        "prepared": Grid((depth // n_frames, height, width), image.affine).to_json(),
        **({"frames": n_frames, "labelled_frames": _by_text(scan.frames)} if is_cine else {}),
        "statistics": statistics_of(image.array),
    }
