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
# # SABS: window, region of interest, resampling
#
# The same as `python -m data.prepare sabs --step normalise --out OUT`: maps the window to 0 to 255, removes 1/16 of
# the rows and columns on each side and resamples the rest to 256 x 256 pixels. Before: `intensity_normalization`.
# Next: `class_slice_index_gen`.

# %%
import logging
import os
import sys
from pathlib import Path

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "training.py").exists())
OUT = Path(os.environ.get("OUT", ROOT / "data"))  # data root
SIZE_PX = int(os.environ.get("SIZE_PX", "256"))  # rows and columns
SCAN = int(os.environ.get("SCAN", "0"))  # to look at
JOBS = int(os.environ.get("JOBS", "1"))  # processes; 1 where this runs as a script
sys.path.insert(0, str(ROOT))
logging.basicConfig(level=logging.INFO, format="%(message)s")

# %%
from data.prepare.scans import normalise
from dataloaders.catalog import dataset
from dataloaders.scans.preprocess import parameters_of

SABS = dataset("SABS")

normalise(SABS, OUT, parameters_of(SABS, SIZE_PX), JOBS)

# %%
from IPython.display import Image, display

from dataloaders.io.nifti import read_nifti
from util.results.overlays import save_overlays

folder = OUT / SABS.prepared_folder()
image, label = (read_nifti(folder / f"{kind}_{SCAN}.nii.gz") for kind in ("image", "label"))
organs = {value: SABS.class_names[value] for value in SABS.evaluated}
picture = folder / f"overlay_{SCAN}.png"
save_overlays(picture, image.array, None, {"Annotation": label.array}, scan=SCAN, organs=organs, affine=image.affine)
display(Image(picture))
