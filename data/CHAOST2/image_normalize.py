# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: -all
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # CHAOST2: common grid and intensities
#
# The same as `python -m data.prepare chaost2 --step normalise --out OUT`: clips each scan at its 99.5th percentile and
# resamples it to 256 x 256 pixels of 1.25 mm, 7.7 mm apart. Before: `png_gth_to_nii`. Next: `class_slice_index_gen`.

# %%
import logging
import os
import sys
from pathlib import Path

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "training.py").exists())
OUT = Path(os.environ.get("OUT", ROOT / "data"))  # data root
SIZE_PX = int(os.environ.get("SIZE_PX", "256"))  # rows and columns
SCAN = int(os.environ.get("SCAN", "1"))  # to look at
JOBS = int(os.environ.get("JOBS", "1"))  # processes; 1 where this runs as a script
sys.path.insert(0, str(ROOT))
logging.basicConfig(level=logging.INFO, format="%(message)s")

# %%
from data.prepare.scans import SCAN_SOURCES, normalise
from dataloaders.catalog import dataset
from dataloaders.scans.preprocess import parameters_of

CHAOST2 = dataset("CHAOST2")

normalise(CHAOST2, OUT, parameters_of(CHAOST2, SIZE_PX), JOBS)

# %%
import matplotlib.pyplot as plt

from dataloaders.io.nifti import read_nifti
from util.results.overlays import for_viewing

before = read_nifti(OUT / SCAN_SOURCES["CHAOST2"].converted_folder / f"image_{SCAN}.nii.gz")
after = read_nifti(OUT / CHAOST2.prepared_folder() / f"image_{SCAN}.nii.gz")

figure, grid = plt.subplots(2, 2, figsize=(9, 8), layout="constrained")
for (top, bottom), volume in zip(grid.T, (before, after), strict=True):
    slices, _, aspect = for_viewing(volume.array, volume.affine)
    top.imshow(slices[len(slices) // 2], cmap="gray", aspect=aspect)
    top.set_axis_off()
    top.set_title(f"{volume.array.shape} voxels of {' x '.join(f'{mm:.4g}' for mm in volume.spacing_mm)} mm")
    bottom.hist(volume.array.ravel(), bins=100, log=True)
    bottom.set_xlabel("intensity")
plt.show()
