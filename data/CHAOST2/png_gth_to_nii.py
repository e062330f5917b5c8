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
# # CHAOST2: DICOM and PNG files to NIfTI
#
# The same as `python -m data.prepare chaost2 --step convert --raw RAW --out OUT`, with a look at the result: does the
# annotation lie on the organs? Next: `image_normalize`.

# %%
import logging
import os
import sys
from pathlib import Path

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "training.py").exists())
RAW = Path(os.environ.get("RAW", ROOT / "data/CHAOST2"))  # holds MR/<id>/T2SPIR
OUT = Path(os.environ.get("OUT", ROOT / "data"))  # data root
SCAN = int(os.environ.get("SCAN", "1"))  # to look at
JOBS = int(os.environ.get("JOBS", "1"))  # processes; 1 where this runs as a script
sys.path.insert(0, str(ROOT))
logging.basicConfig(level=logging.INFO, format="%(message)s")

# %%
from data.prepare.scans import SCAN_SOURCES, convert
from dataloaders.catalog import dataset

CHAOST2 = dataset("CHAOST2")

convert(CHAOST2, RAW, OUT, JOBS)

# %%
from IPython.display import Image, display

from dataloaders.io.nifti import read_nifti
from util.results.overlays import save_overlays

folder = OUT / SCAN_SOURCES["CHAOST2"].converted_folder
image, label = (read_nifti(folder / f"{kind}_{SCAN}.nii.gz") for kind in ("image", "label"))
organs = dict(enumerate(CHAOST2.class_names[1:], start=1))
picture = folder / f"overlay_{SCAN}.png"
save_overlays(picture, image.array, None, {"Annotation": label.array}, scan=SCAN, organs=organs, affine=image.affine)
display(Image(picture))
