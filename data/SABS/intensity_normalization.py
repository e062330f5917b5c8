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
# # SABS: files and window
#
# The same as `python -m data.prepare sabs --step convert --raw RAW --out OUT`: checks the scans and numbers them 0 to
# 29. Below, the window that the next step, `resampling_and_roi`, applies.

# %%
import logging
import os
import sys
from pathlib import Path

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "training.py").exists())
RAW = Path(os.environ.get("RAW", ROOT / "data/SABS"))  # holds img/ and label/
OUT = Path(os.environ.get("OUT", ROOT / "data"))  # data root
SCAN = int(os.environ.get("SCAN", "0"))  # to look at
JOBS = int(os.environ.get("JOBS", "1"))  # processes; 1 where this runs as a script
sys.path.insert(0, str(ROOT))
logging.basicConfig(level=logging.INFO, format="%(message)s")

# %%
from data.prepare.scans import SCAN_SOURCES, convert
from dataloaders.catalog import dataset

SABS = dataset("SABS")

convert(SABS, RAW, OUT, JOBS)

# %%
import matplotlib.pyplot as plt

from dataloaders.io.nifti import read_nifti
from dataloaders.scans.preprocess import apply_window, parameters_of
from util.results.overlays import for_viewing

image = read_nifti(OUT / SCAN_SOURCES["SABS"].converted_folder / f"image_{SCAN}.nii.gz")
window_hu = parameters_of(SABS).window_hu
windowed = apply_window(image.array, window_hu)

figure, grid = plt.subplots(2, 2, figsize=(9, 8), layout="constrained")
titles = ("Hounsfield units", f"{window_hu[0]:g} to {window_hu[1]:g} HU as 0 to 255")
for (top, bottom), array, title in zip(grid.T, (image.array, windowed), titles, strict=True):
    slices, _, aspect = for_viewing(array, image.affine)
    top.imshow(slices[len(slices) // 2], cmap="gray", aspect=aspect)
    top.set_axis_off()
    top.set_title(title)
    bottom.hist(array.ravel(), bins=100, log=True)
    bottom.set_xlabel("intensity")
plt.show()
