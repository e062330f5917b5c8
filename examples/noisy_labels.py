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
# # Learning from noisy masks
#
# Synthetic skin images (ISIC 2017). Seven of ten training masks are corrupted: dilated, eroded, or rotated and
# translated, until 70 % of the object's area has changed. The same small U-Net is trained on them with plain
# cross-entropy and with T-Loss, whose tails let it ignore masks that fit badly; the clean test masks judge. Methods
# and figures: docs/noisy_labels.md. With so few steps T-Loss,
# which starts slowly, is behind: this shows how, not how well.

# %%
import logging
import os
import sys
from pathlib import Path

ROOT = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "training.py").exists())
OUT = Path(os.environ.get("OUT", ROOT / "demo/notebooks/noisy_labels"))  # folder of all that is written
N_IMAGES = os.environ.get("N_IMAGES", "40")
N_STEPS = int(os.environ.get("N_STEPS", "120"))
sys.path.insert(0, str(ROOT))
logging.basicConfig(level=logging.WARNING, format="%(message)s")

# %% [markdown]
# ## Data, and the simulated noise

# %%
from frugalseg import dispatch as frugalseg

raw, data = f"{OUT}/raw", f"{OUT}/data/ISIC2017/prepared_64px"
frugalseg(["phantom", "isic2017", "--out", raw, "--scans", N_IMAGES, "--size-px", "64"])
frugalseg(["prepare", "isic2017", "--raw", raw, "--out", f"{OUT}/data", "--size-px", "64"])
frugalseg(["noise", data, "--alpha", "0.7", "--beta", "0.7", "--picture", f"{OUT}/noise.png"])

# %%
from IPython.display import Image, display

display(Image(OUT / "noise.png"))

# %% [markdown]
# ## Train
#
# Every `eval_every` steps the network is scored on the test images. While a training runs, `progress.png` in its
# folder shows its curves.

# %%
noise = ["noise.alpha=0.7", "noise.beta=0.7"]
small = [
    "noisy_small",
    f"n_steps={N_STEPS}",
    f"eval_every={max(N_STEPS // 6, 1)}",
    "diagnosed_images=0",
    "print_interval=5",
]
places = [f"path.data_dir={data}", f"path.log_dir={OUT}/exps"]
for method in ("ce", "tloss"):
    frugalseg(["train", "isic2017", method, *noise, *small, *places])

# %%
from util.results.curves import read_sacred_scalars, save_curves

curves = {}
for folder in sorted((OUT / "exps").glob("*_ISIC2017_*")):
    logged = read_sacred_scalars(max((folder / "runs").glob("[0-9]*"), key=os.path.getmtime))
    method = folder.name.partition("_")[0]
    curves |= {f"val/{score}/{method}": logged[f"val/{score}"] for score in ("dice", "iou")}
save_curves(OUT / "curves.png", dict(sorted(curves.items())), "Scores of the clean test images")
display(Image(OUT / "curves.png"))

# %% [markdown]
# ## Look
#
# The networks are loaded from their checkpoints, as for one's own images (docs/predict.md).

# %%
import numpy as np

from dataloaders.images.folder import ImageFolder
from dataloaders.io.png import read_mask
from models.predict import DensePredictor
from util.results.overlays import save_image_overlays

images, cases = ImageFolder(Path(data)), []
for path in sorted((OUT / "exps").glob("*/checkpoint.pt")):
    predictor = DensePredictor.from_checkpoint(path, device="cpu")
    for image_id in images.ids("test")[:2]:
        image = predictor.read(images.image_path(image_id))
        found = predictor.predict(image).masks["lesion"]
        truth = read_mask(images.mask_path(image_id, "lesion"))
        dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
        title = f"{path.parent.name.partition('_')[0]}, Dice {dice:.2f}"
        cases.append((title, np.moveaxis(image, -1, 0), truth[None], found[None]))
save_image_overlays(OUT / "predictions.png", cases, ["lesion"], "Test images")
display(Image(OUT / "predictions.png"))
