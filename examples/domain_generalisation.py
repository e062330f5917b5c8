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
# # Semi-supervised domain generalisation
#
# Synthetic cine MR of hearts (M&Ms) from four vendors, the domains A to D. One patient of A, C and D each is
# labelled; B stays closed until the test. CACPS shows two networks each unlabelled slice in the look of another
# domain and lets them agree; the look is exchanged by mixing Fourier amplitudes. Methods and figures:
# docs/domain_generalisation.md. With so few steps the masks are rough: this shows how, not how well.

# %%
import logging
import os
import sys
from pathlib import Path

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "training.py").exists())
OUT = Path(os.environ.get("OUT", ROOT / "demo/notebooks/domain_generalisation"))  # folder of all that is written
N_PATIENTS = os.environ.get("N_PATIENTS", "8")  # dealt to the domains in turn
N_STEPS = int(os.environ.get("N_STEPS", "120"))
sys.path.insert(0, str(ROOT))
logging.basicConfig(level=logging.WARNING, format="%(message)s")

# %% [markdown]
# ## Data

# %%
from frugalseg import dispatch as frugalseg

frugalseg(["phantom", "mms", "--out", f"{OUT}/raw", "--scans", N_PATIENTS, "--size-px", "72"])
frugalseg(["prepare", "mms", "--raw", f"{OUT}/raw", "--out", f"{OUT}/data", "--size-px", "72"])

# %% [markdown]
# ## The Fourier mix
#
# Low frequencies of the amplitude hold brightness and contrast, the phase holds the shapes. The second row shows a
# slice of D with more and more of the amplitude of C, in a window around frequency 0 (`fourier.mode=swap`; wider here
# than in training, to be seen): the anatomy, and so the mask, stays.

# %%
import pandas as pd
import torch
from IPython.display import Image, display

from dataloaders.io.nifti import read_nifti
from dataloaders.sources.store import normalise_slices
from dataloaders.transforms.fourier import FourierConfig, mix_amplitudes
from util.results.pictures import panel_grid, save_figure, show_image

folder = next((OUT / "data").rglob("slices.csv")).parent
slices = pd.read_csv(folder / "slices.csv", dtype=str)
shown = {}
for domain, scans in slices.groupby("domain")["scan"]:
    array = normalise_slices(read_nifti(folder / f"image_{scans.iloc[0]}.nii.gz").array, (0.5, 99.5))
    n_slices = slices.query("scan == @scans.iloc[0] and frame == '0'").shape[0]
    shown[domain] = torch.from_numpy(array[n_slices // 2])

shares = (0.0, 0.5, 1.0)
own, partner = (shown[domain].expand(len(shares), 1, -1, -1) for domain in "DC")
mixed = mix_amplitudes(own, partner, torch.tensor(shares), FourierConfig(window=0.1))
figure, grid = panel_grid("Slices of the domains, and one of D in the look of C", 2, 4)
for axes, (domain, image) in zip(grid[0], shown.items(), strict=True):
    show_image(axes, image.numpy(), f"domain {domain}", (0, 1))
for axes, share, image in zip(grid[1], shares, mixed, strict=False):
    show_image(axes, image[0].numpy(), f"D with {share:.0%} of C's amplitude", (0, 1))
show_image(grid[1, 3], (mixed[-1] - mixed[0])[0].abs().numpy(), "what has changed", (0, 0.5))
save_figure(figure, OUT / "fourier.png")
display(Image(OUT / "fourier.png"))

# %% [markdown]
# ## Train on A, C and D, test on B
#
# No scan of B is opened by the training. The curves are those of `progress.png`, which is drawn while a training
# runs.

# %%
words = ["mms", "cacps", "semidg_small", "labels5", "test_domains=[B]", f"n_steps={N_STEPS}", "print_interval=2"]
words += ["surface_scores=False", f"path.data_dir={OUT}/data", f"path.log_dir={OUT}/exps"]
frugalseg(["train", *words])
display(Image(next((OUT / "exps").glob("*/progress.png"))))

# %%
from IPython.display import Markdown

frugalseg(["validate", *words])
run = max((OUT / "exps").glob("*/validation/*/table.md"), key=os.path.getmtime).parent
display(Markdown("\n\n".join((run / "table.md").read_text().split("\n\n")[:2])))  # the first table, and its note
display(Image(min((run / "overlays").rglob("*.png"))))
print("Report page:", run / "report.html")
