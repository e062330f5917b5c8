"""Small networks of every family, their checkpoints, and their exports."""

from dataclasses import asdict, replace

import torch

from dataloaders.description import ClassSpec, DatasetSpec, GridRule
from dataloaders.rules import FoldRule, IntensityRule
from dataloaders.samples import Task
from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import parameters_of
from dataloaders.sources.frames import SliceRule
from models.export.__main__ import main
from models.training.average import AverageConfig
from models.training.optim import OptimConfig
from models.training.state import build_state
from util.runtime import checkpoint

CLASSES = (ClassSpec("disc", value=100), ClassSpec("box", value=300))
IMAGES = DatasetSpec(
    "MINE", "images", classes=CLASSES, files="secret/table.csv", prepared="secret",
    grid=GridRule(size_px=32, aspect="pad"),
    intensity=IntensityRule(window=(0.0, 65_535.0)), licence="CC0",
)  # fmt: skip
SCANS = DatasetSpec(
    "OWN", "scans", classes=CLASSES, cases=("DOE-JANE", "ROE-RICHARD"), domains={"ward7": "Secret hospital"},
    folds=FoldRule(2, lists=(("DOE-JANE",), ("ROE-RICHARD",))), grid=GridRule(size_px=64, in_plane_mm=2.0),
)  # fmt: skip
EYES = replace(IMAGES, name="EYES", channels=3, intensity=IntensityRule())
UNET = {"in_channels": 1, "n_classes": 3, "halvings": [2, 2], "base_features": 8, "max_features": 8}
TASKS = [asdict(Task("both", ("disc", "box"), "exclusive"))]
RULE = asdict(SliceRule((0.0, 100.0), 32))
# Method, its settings besides those of every run, data set and preparation.
NETWORKS = {
    "dense": (
        {"method": "supervised", "loss": "gce", "class_weighted": False, "unet": UNET, "structures": ["disc", "box"],
         "size_px": None},
        IMAGES, None,
    ),
    "fewshot": (
        {"method": "alpnet", "modelname": "resnet18", "prototypes": "local", "train_on": "superpixels"},
        replace(SCANS, name="FEW"), parameters_of(SCANS).to_json(),
    ),
    "sources": (
        {"method": "cps", "network": {"kind": "unet", "in_channels": 1, "n_classes": 3, "unet": {
            "halvings": [2, 2], "base_features": 8, "max_features": 8}}},
        SCANS, parameters_of(SCANS).to_json() | {"slices": RULE},
    ),
    "partial": (
        {"method": "partial_generator", "network": {"encoder": "test_efficientnet", "channels": 8}, "heads": TASKS,
         "sources": ["EYES"], "mean": [120.0, 60.0, 30.0], "sd": [50.0, 40.0, 30.0], "size_px": 64},
        EYES, None,
    ),
}  # fmt: skip
# Not exported by every test; the predictors of a partial network of scans and of a self-trained one.
OTHERS = {
    "partial_scans": (
        {"method": "partial_generator", "network": {"encoder": "test_efficientnet", "channels": 8, "in_channels": 1},
         "heads": TASKS, "sources": ["OWN"], "mean": [127.5], "sd": [63.75], "size_px": 64},
        SCANS, parameters_of(SCANS).to_json() | {"slices": RULE},
    ),
    "self_trained": (
        {"method": "self_training", "modelname": "efficientnet_lite0", "n_classes": 3, "label_sets": "all",
         "decoder_channels": [8, 8, 8, 8, 8]},
        SCANS, parameters_of(SCANS).to_json(),
    ),
}  # fmt: skip
PATHS = {
    "encoder_weights": "/home/secret/net.pth",
    "path": {"data_dir": "/home/secret"},
    "dataset": "/home/secret/m.json5",
}


def write_checkpoint(folder, family):
    """A checkpoint of random weights, whose averaged ones are others."""
    own, spec, preparation = (NETWORKS | OTHERS)[family]
    settings = own | {"n_steps": 7, "seed": 3, "batch_size": 2, "encoder_weights": "none"}
    cpu = torch.device("cpu")
    state = build_state(settings, 0, OptimConfig(), AverageConfig(), Normalisation(), cpu, preparation, spec=spec)
    assert state.average
    state.step = 7
    for parameter in state.average.module.parameters():
        parameter.data.mul_(1.5)
    content = state.state_dict()
    checkpoint.save(folder / "checkpoint.pt", content | {"settings": settings | PATHS})
    return folder / "checkpoint.pt"


def card(path, out, *further):
    main([str(path), "--out", str(out), *map(str, further)])
    return (out / "MODEL_CARD.md").read_text()
