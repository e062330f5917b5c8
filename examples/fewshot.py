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
# # Few-shot segmentation: one annotated scan, nothing is trained
#
# Synthetic abdominal MR scans (CHAOST2) are prepared. `propagation` then segments the test scans by comparison with
# one annotated scan: every place takes its label from places of the annotated scan that look alike and lie at about
# the same place of the body. Methods and figures: docs/fewshot.md.
#
# The words are those of the command line: `frugalseg(["prepare", "chaost2", ...])` is `frugalseg prepare chaost2
# ...`.

# %%
import logging
import os
import sys
from pathlib import Path

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "training.py").exists())
OUT = Path(os.environ.get("OUT", ROOT / "demo/notebooks/fewshot"))  # folder of all that is written
SIZE_PX = os.environ.get("SIZE_PX", "128")  # rows and columns; the published size is 256
N_SCANS = os.environ.get("N_SCANS", "5")  # one is annotated, one is tested
sys.path.insert(0, str(ROOT))
logging.basicConfig(level=logging.WARNING, format="%(message)s")

# %% [markdown]
# ## Data
#
# `phantom` writes DICOM series and PNG annotations in the layout of the challenge; with the downloaded data, only
# `--raw` changes.

# %%
from frugalseg import dispatch as frugalseg

raw, data = f"{OUT}/raw", f"{OUT}/data"
frugalseg(["phantom", "chaost2", "--out", raw, "--scans", N_SCANS, "--size-px", SIZE_PX])
frugalseg(["prepare", "chaost2", "--raw", raw, "--out", data, "--size-px", SIZE_PX, "--step", "convert"])
frugalseg(["prepare", "chaost2", "--raw", raw, "--out", data, "--size-px", SIZE_PX, "--step", "normalise"])
frugalseg(["prepare", "chaost2", "--raw", raw, "--out", data, "--size-px", SIZE_PX, "--step", "index"])

# %% [markdown]
# ## Segment and score
#
# The blind protocol reads nothing of the scans' own annotations. `brightness.levels=[]` leaves out the copies of
# other brightness, which make the method more accurate and slower.

# %%
from IPython.display import Image, Markdown, display

keys = ["eval_fold=1", "label_sets=all", "protocol=blind", "surface_scores=False", "brightness.levels=[]"]
frugalseg(["validate", "propagation", "chaost2", *keys, f"path.data_dir={data}", f"path.log_dir={OUT}/exps"])
run = max((OUT / "exps").glob("*/validation/*/table.md"), key=os.path.getmtime).parent
display(Markdown((run / "table.md").read_text()))

# %% [markdown]
# ## Look
#
# White: the annotation of the scan itself, which the method did not see. The report page shows every scan.

# %%
display(Image(min((run / "overlays").glob("*.png"))))
print("Report page:", run / "report.html")
