"""Few-shot segmentation: the methods' words, the paper's settings, and what was published for them."""

from typing import Any

from models.presets.rules import Rule

# Propagation without what makes it slow: slices at their own size, structures found as a whole only, one place prior
# for all of them. Less accurate; not published.
PLAIN_PROPAGATION: dict[str, Any] = {
    "method": "propagation",
    "enlargements": [1.0],
    "displacement": {"agreement": 0.0},
    "deformation": {"reach": 0.0},
    "calibration": {"copies": 0},
    "postprocess": {"appearance": False},
}

# Words of the methods. Expected Dice x 100, mean over organs and folds, MR / CT. Source: SSL-ALPNet (ECCV 2020), tables
# 1 and 2.
METHODS: dict[str, dict[str, Any]] = {
    "alpnet": {"method": "alpnet", "prototypes": "local", "train_on": "superpixels"},  # 78.84 / 73.35
    "ssl_panet": {"method": "alpnet", "prototypes": "global", "train_on": "superpixels"},  # 63.17 / 57.88
    "panet": {"method": "alpnet", "prototypes": "global", "train_on": "labels"},  # 38.53 / 31.86
    "alpnet_annotated": {"method": "alpnet", "prototypes": "local", "train_on": "labels"},  # 51.28 / 41.63
    "propagation": {"method": "propagation"},  # our own, without training; not published
    "propagation_plain": PLAIN_PROPAGATION,
    # our own, on the label maps of propagation (pseudo_labels=FOLDER); not published
    "self_training": {"method": "self_training"},
    "registration": {"method": "registration"},  # a yardstick without learning, not published
    "threshold": {"method": "threshold"},  # a yardstick, not published
}

# Words of the data sets. Source: SSL-ALPNet (ECCV 2020), section 4.1.
DATA: dict[str, dict[str, Any]] = {
    "chaost2": {"dataset": "CHAOST2"},
    "sabs": {"dataset": "SABS"},
}

# Words of the paper's settings: 1: any slice is trained on, unlabelled; 2: slices that show a tested organ are left
# out. Source: as above.
SETTINGS: dict[str, dict[str, Any]] = {
    "setting1": {"setting": 1},
    "setting2": {"setting": 2},
}

# A few scans, a CPU or a small GPU, no pretrained weights: eleven minutes on two cores; not published. The
# learning rate was chosen on fold 1 of eight CHAOST2 scans, not on the fold that is reported (docs/performance.md).
SMALL: dict[str, Any] = {
    "modelname": "resnet18",
    "encoder_weights": "none",
    "n_steps": 4000,
    "optim": {"lr": 3e-3},
    "checkpoint_every": 250,
    "print_interval": 50,
    "num_workers": 0,
}

# A few scans, a GPU, ImageNet weights from an installed package: seven minutes on an H100 with `fast`; not published.
# The learning rate (of 1e-3 and 3e-3) and the steps (of 10 000 and 20 000) were chosen on fold 1 likewise.
PACKAGED: dict[str, Any] = {
    "modelname": "efficientnet_lite0",
    "encoder_weights": "package",
    "n_steps": 20_000,
    "optim": {"lr": 3e-3},
    "save_snapshot_every": 5_000,
}

# Source: SSL-ALPNet (ECCV 2020), section 4.2 and released code: SGD, learning rate x 0.95 every 1000 steps.
TRAINING: dict[str, Any] = {
    "n_steps": 100_100,
    "batch_size": 1,
    "optim": {
        "name": "sgd",
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "step",
        "step_every": 1000,
        "step_gamma": 0.95,
    },
    "save_snapshot_every": 25_000,
}

# Label maps of propagation: what is less certain is unknown. Not published: chosen on the pairs among the CHAOS scans
# 8, 10, 13 and 15.
PROPAGATING: dict[str, Any] = {"pseudo_label": {"min_confidence": 0.7}}
# The training on them: 35 minutes on two CPU cores, a minute on an H100. Not published: chosen likewise.
SELF_TRAINING: dict[str, Any] = PROPAGATING | {
    "n_steps": 600,
    "batch_size": 16,
    "optim": {
        "name": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup_steps": 50,
    },
    "checkpoint_every": 100,
    "print_interval": 25,
}

RULES = (
    Rule("SSL-ALPNet (ECCV 2020), section 4.2 and released code", TRAINING, {"method": ("alpnet",)}),
    Rule("not published", PROPAGATING, {"method": ("propagation",)}),
    Rule("not published", SELF_TRAINING, {"method": ("self_training",)}),
)
