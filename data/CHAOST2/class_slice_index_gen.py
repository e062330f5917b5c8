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
# # CHAOST2: which slices show which organ
#
# The same as `python -m data.prepare chaost2 --step index`. Before: `image_normalize`. Next:
# `../pseudolabel_gen`.

# %%
import os
import sys
from pathlib import Path

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "training.py").exists())
OUT = Path(os.environ.get("OUT", ROOT / "data"))  # data root
MIN_TP = int(os.environ.get("MIN_TP", "1"))  # pixels from which an organ counts as shown; training needs 1
sys.path.insert(0, str(ROOT))

# %%
from data.prepare.class_index import write_class_index
from dataloaders.catalog import dataset

CHAOST2 = dataset("CHAOST2")

folder = OUT / CHAOST2.prepared_folder()
write_class_index(folder, CHAOST2, MIN_TP)

# %%
import matplotlib.pyplot as plt

from util.files import read_json

index = read_json(folder / f"classmap_{MIN_TP}.json")
organs = list(CHAOST2.class_names[1:])
scans = list(index[organs[0]])

figure, axes = plt.subplots(figsize=(10, 3), layout="constrained")
shown = axes.imshow([[len(index[organ][scan]) for scan in scans] for organ in organs], aspect="auto")
axes.set_xticks(range(len(scans)), scans)
axes.set_yticks(range(len(organs)), organs)
axes.set_xlabel("scan")
figure.colorbar(shown, label="slices")
plt.show()
