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
# # Several partly labelled sets, one network
#
# Three sets of synthetic pictures show the same structures, but one is annotated for lines, one for blobs, one for
# discs and cups. One network with a head per task is trained on all three; it then finds all structures in every
# picture, and its masks of what a set is not annotated for are the pseudo-labels of a second training. Methods and
# figures: docs/partial_labels.md.

# %%
import logging
import os
import sys
from pathlib import Path

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "training.py").exists())
OUT = Path(os.environ.get("OUT", ROOT / "demo/notebooks/partial_labels"))  # folder of all that is written
N_IMAGES = int(os.environ.get("N_IMAGES", "16"))  # of each set
N_STEPS = int(os.environ.get("N_STEPS", "300"))
sys.path.insert(0, str(ROOT))
logging.basicConfig(level=logging.WARNING, format="%(message)s")

# %% [markdown]
# ## Three sets
#
# Each is a folder with images, masks, a table of files and a description, as for one's own data (docs/own_data.md).

# %%
from benchmarks.partial_study import TASKS, write_set
from frugalseg import dispatch as frugalseg

sets = [write_set(OUT / "raw", name, name, classes, {"train": N_IMAGES}) for name, classes in TASKS.items()]
for description in sets:
    frugalseg(["prepare", f"{description}", "--out", f"{OUT}/data", "--size-px", "64"])

# %% [markdown]
# ## Who learns from whom
#
# A class that a set is not annotated for is unknown there, not background: it adds nothing to the loss, and its head
# gets no gradient from these images. `is_known` is that routing, a row for each set and a column for each class.

# %%
from dataloaders.catalog import dataset
from dataloaders.partial.config import PartialDataConfig, known_row
from dataloaders.partial.tasks import channels_of

tasks = PartialDataConfig(datasets=tuple(map(str, sets))).task_list
names = channels_of(tasks)
is_known = {path.stem: known_row(dataset(f"{path}"), tasks) for path in sets}
print("         ", *(f"{name:>8}" for name in names))
for name, row in is_known.items():
    print(f"{name:10}", *(f"{'learned' if known else '-':>8}" for known in row))

# %%
import numpy as np
from IPython.display import Image, display

from dataloaders.io.png import read_image, read_mask
from util.results.overlays import save_image_overlays

cases = []
for name, row in is_known.items():
    image = np.moveaxis(read_image(OUT / f"raw/{name}/images/{name}0.png"), -1, 0)
    masks = np.zeros((len(names), *image.shape[1:]), bool)
    for channel in np.flatnonzero(row):
        masks[channel] = read_mask(OUT / f"raw/{name}/{names[channel]}/{name}0.png")
    cases.append((f"set {name}: what is annotated", image, None, masks))
save_image_overlays(OUT / "sets.png", cases, names, "Three partly labelled sets")
display(Image(OUT / "sets.png"))

# %% [markdown]
# ## Train, and write pseudo-labels
#
# The second training takes them with the same words, `partial_adversarial` in place of `partial_generator`, and
# `pseudo_labels=<folder>`. Pixels between the thresholds stay unknown. After so few steps, some masks are wrong.

# %%
words = ["partial_generator", "partial_small", f"datasets=[{','.join(map(str, sets))}]", "size_px=64", "crop_px=64"]
words += [f"n_steps={N_STEPS}", "network.encoder=test_convnext", "network.channels=16"]
words += [f"path.data_dir={OUT}/data", f"path.log_dir={OUT}/exps"]
frugalseg(["train", *words])
frugalseg(["pseudo-labels", *words, f"export_to={OUT}/pseudo_labels"])
display(Image(OUT / "pseudo_labels/pseudo_labels.png"))

# %% [markdown]
# ## A new picture
#
# One network finds the classes of all three sets. White: the truth, which a phantom knows.

# %%
from data.phantom.simple import make_picture
from models.predict import PartialPredictor

(checkpoint,) = (OUT / "exps").glob("*/checkpoint.pt")
predictor = PartialPredictor.from_checkpoint(checkpoint, device="cpu")
cases = []
for seed in range(4):
    made = make_picture(seed, 64, (0.05, 0.05, 0.05), 0.05)  # a colour cast that no set has
    found = predictor.predict(made.image).masks
    truth, masks = (np.stack([each[name] for name in names]) for each in (made.masks, found))
    dice = [2 * (a & b).sum() / max((a | b).sum() + (a & b).sum(), 1) for a, b in zip(truth, masks, strict=True)]
    cases.append((f"mean Dice {np.mean(dice):.2f}", np.moveaxis(made.image, -1, 0), truth, masks))
save_image_overlays(OUT / "predictions.png", cases, names, "New pictures")
display(Image(OUT / "predictions.png"))
