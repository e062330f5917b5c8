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
# # Superpixels: the pseudo-labels of self-supervised training
#
# The same as `frugalseg superpixels DATASET --scale SCALE`. Before: the notebooks in the data
# set's folder. Next: `examples/train_ssl_abdominal_mri.sh` or `examples/train_ssl_abdominal_ct.sh`.

# %%
import logging
import os
import sys
from pathlib import Path

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "training.py").exists())
OUT = Path(os.environ.get("OUT", ROOT / "data"))  # data root
DATASET = os.environ.get("DATASET", "CHAOST2")  # CHAOST2 or SABS
SCALE = os.environ.get("SCALE", "MIDDLE")  # MIDDLE (the paper's), SMALL, SLIC or SUPERVOXEL
JOBS = int(os.environ.get("JOBS", "1"))  # processes; 1 where this runs as a script
sys.path.insert(0, str(ROOT))
logging.basicConfig(level=logging.INFO, format="%(message)s")

# %%
from data.superpixels.scans import draw_pseudo_labels, write_pseudo_labels
from dataloaders.catalog import dataset

spec = dataset(DATASET)
folder = OUT / spec.prepared_folder()
write_pseudo_labels(folder, spec, SCALE, jobs=JOBS)

# %%
from IPython.display import Image, display

picture = folder / f"superpix-{SCALE}.png"
draw_pseudo_labels(folder, spec, SCALE, picture)
display(Image(picture))
