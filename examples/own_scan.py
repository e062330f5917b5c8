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
# # One annotated scan, and a scan of your own
#
# A NIfTI scan is segmented by comparison with an annotated one, in Python: nothing is trained, no network is needed,
# no description of the data. Put in your own files: `SCAN`, `ANNOTATED` and `LABEL`; without them, synthetic patients
# are written first. The command line does the same for folders: docs/predict_own_scan.md. Research software, not a
# medical device.

# %%
import logging
import os
import sys
from pathlib import Path

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "training.py").exists())
OUT = Path(os.environ.get("OUT", ROOT / "demo/notebooks/own_scan"))  # folder of all that is written
SCAN = os.environ.get("SCAN", "")  # to segment; empty: synthetic ones are written
ANNOTATED = os.environ.get("ANNOTATED", "")  # the annotated scan
LABEL = os.environ.get("LABEL", "")  # its label map, on the same grid
CLASSES = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}  # name -> value in the label map
SIZE_PX = int(os.environ.get("SIZE_PX", "80"))  # rows and columns of the synthetic scans
sys.path.insert(0, str(ROOT))
logging.basicConfig(level=logging.WARNING, format="%(message)s")

# %%
from data.phantom import make_patient
from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.samples import Volume

truth = None
if not SCAN:
    SCAN, ANNOTATED, LABEL = (OUT / f"{name}.nii.gz" for name in ("case7", "annotated", "annotated_label"))
    patients = [each for index in (1, 0) for each in make_patient("chaost2", index, size_px=SIZE_PX)]
    middle = [Volume(each.array[9:19], each.affine) for each in patients]  # some slices, to be quick
    truth = middle.pop(1)
    for path, volume in zip((SCAN, ANNOTATED, LABEL), middle, strict=True):
        write_nifti(path, volume)
scan, annotated, label = (read_nifti(Path(path)) for path in (SCAN, ANNOTATED, LABEL))

# %% [markdown]
# ## Segment
#
# Several annotated scans are more accurate than one: `set_supports` takes them. The label map is stored on the grid
# of the scan, with the values of the annotation, for any viewer.

# %%
from models.predict import PropagationPredictor

predictor = PropagationPredictor.from_scan(annotated, "cpu")
predictor.set_support(annotated, label, CLASSES)
found = predictor.segment(scan)
stem = Path(SCAN).name.partition(".")[0]
write_nifti(OUT / f"{stem}_segmentation.nii.gz", found.label_map)

# %% [markdown]
# ## How far to trust it
#
# The confidence of a structure says how firm its outline is. It is no Dice, but orders masks by their quality: on real
# MR scans hardly a mask below 0.4 was good. Dice is known here only because the scan is synthetic.

# %%
import numpy as np

voxel_ml = np.prod(found.label_map.spacing_mm) / 1000
for name, value in CLASSES.items():
    mask = found.label_map.array == value
    text = f"{name:13} {mask.sum() * voxel_ml:7.1f} ml  confidence {found.confidence[name] or 0:.2f}"
    if truth is not None:
        overlap, total = (mask & (truth.array == value)).sum(), mask.sum() + (truth.array == value).sum()
        text += f"  Dice {2 * overlap / max(total, 1):.2f}"
    print(text)

# %%
from IPython.display import Image, display

from util.results.overlays import save_overlays

organs = {value: name for name, value in CLASSES.items()}
masks, picture = {"Prediction": found.label_map.array}, OUT / f"{stem}_overlay.png"
save_overlays(
    *(picture, scan.array, None if truth is None else truth.array, masks),
    scan=stem,
    organs=organs,
    affine=scan.affine,
)
display(Image(picture))
