"""A small prepared set of hearts in four domains, and a method that marks what is bright."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dataloaders.description import ClassSpec, DatasetSpec, GridRule, write_description
from dataloaders.io.geometry import Grid, paste_back
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.manifest import Manifest
from dataloaders.sources.config import SourcesDataConfig
from dataloaders.sources.data import open_sources
from models.methods.base import Method

SIZE, DEPTH = 32, 4
SPEC = DatasetSpec(
    "HEARTS", "scans", classes=(ClassSpec("LV", value=10), ClassSpec("RV", value=300)), grid=GridRule(size_px=SIZE)
)
AFFINE = np.diag([-2.0, 2.0, 8.0, 1.0])
ORIGINAL = Grid((DEPTH, SIZE + 2, 40), np.array([[-2.0, 0, 0, 4], [0, 2, 0, -2], [0, 0, 8, 0], [0, 0, 0, 1]]))


@dataclass(frozen=True)
class BrightConfig:
    """Nothing to set."""


class Bright(Method):
    """Marks intensities about 0.5 as the first class and those about 1 as the second, `offset` columns off."""

    Config = BrightConfig
    family = "sources"
    batch_type = None

    def __init__(self, config=None, offset=0):
        super().__init__()
        self.offset = offset

    def forward(self, batch):
        return {}

    def probabilities(self, case, support=None):
        assert not self.training
        image = case.image[:, 0].roll(self.offset, -1)
        return torch.stack([((image > 0.3) & (image < 0.8)).float(), (image >= 0.8).float()])


def label_of(number, frame=0):
    """Two boxes; of higher number and frame: smaller."""
    label = np.zeros((DEPTH, SIZE, SIZE), np.uint8)
    label[1:3, 8:16, 8 + number : 16] = 1
    label[1:3, 20:28, 8 : 20 - frame] = 2
    return label


def write_hearts(root, patients=2, frames=("ED", "", "ES"), original=True):
    """Domains A to D with some patients each; what is drawn in an image has a row more than its label says."""
    folder = root / SPEC.prepared_folder()
    folder.mkdir(parents=True)
    write_description(folder, SPEC)
    manifest = Manifest(SPEC.name)
    for domain in "ABCD":
        for number in range(1, patients + 1):
            scan = f"{domain}{number}"
            labels = [label_of(number, frame) for frame in range(len(frames))]
            shown = [np.maximum(each, np.roll(each, number, axis=1)) for each in labels]
            image = np.concatenate(shown).astype(np.float32) * 50
            truth = np.concatenate([each * bool(phase) for each, phase in zip(labels, frames, strict=True)])
            write_nifti(folder / f"image_{scan}.nii.gz", Volume(image, AFFINE))
            write_nifti(folder / f"label_{scan}.nii.gz", Volume(truth, AFFINE))
            entry = {"patient": f"P{scan}", "domain": domain, "centre": "1", "frames": len(frames)}
            entry |= {"labelled_frames": {str(n): phase for n, phase in enumerate(frames) if phase}}
            if original:
                entry["original"] = ORIGINAL.to_json()
                parts = np.split(truth, len(frames))
                pasted = [paste_back(Volume(each, AFFINE), ORIGINAL.shape, ORIGINAL.affine).array for each in parts]
                whole = Volume(np.concatenate(pasted), ORIGINAL.affine)
                write_nifti(folder / f"original-label_{scan}.nii.gz", whole)
            manifest.scans[scan] = entry
    manifest.save(folder)
    return folder


def open_hearts(folder, **settings):
    """The folder, opened for a run that tests domain A."""
    chosen: dict[str, Any] = {"dataset": str(folder), "test_domains": ("A",), "labelled_fraction": 0.5}
    chosen |= {"percentiles": (0.0, 100.0), "which_aug": "none"} | settings
    return open_sources(SourcesDataConfig(**chosen), str(folder))
