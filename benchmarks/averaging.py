"""What averaging gains in prediction: over flipped images, and over networks of several seeds, on phantom skin images.

python -m benchmarks.averaging --out study --jobs 2     # the table in docs/predict.md; three minutes on two CPU cores

The networks are those of examples/study_noisy_phantom.sh: plain cross-entropy on masks of which 70 % are wrong by
70 % of the area. They are averaged as `frugalseg predict --checkpoint A B C --flips` does. Completed runs are not
repeated.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.runs import run_once
from data.noise.__main__ import main as make_noise
from data.phantom import write_phantom
from data.prepare.__main__ import main as prepare
from dataloaders.images.config import DenseConfig
from dataloaders.images.data import open_dense
from dataloaders.samples import ImageCase
from models.methods.base import Method
from models.prediction.averaging import AveragedSegmenter
from models.training.load import load_trained, read_trained
from util.cli import parallel_map, run_main, whole
from util.files import write_text
from util.results.tables import markdown_header, markdown_row

logger = logging.getLogger(__name__)

SEEDS = (0, 1, 2)
N_IMAGES, RAW_PX, SIZE_PX = 200, 96, 64
NOISE = ["--alpha", "0.7", "--beta", "0.7"]


def make_data(out: Path, jobs: int) -> None:
    """Writes and prepares the images and their noisy masks."""
    write_phantom("isic2017", out / "raw", N_IMAGES, RAW_PX, seed=0, jobs=jobs)
    size = ["--size-px", f"{SIZE_PX}", "--jobs", f"{jobs}"]
    prepare(["isic2017", "--raw", f"{out / 'raw'}", "--out", f"{out / 'data'}", *size])
    make_noise(["isic2017", *NOISE, "--data-dir", f"{out / 'data'}", *size])


def train(seed: int, out: Path) -> Path:
    """Trains a network, or finds that of an earlier run; returns its checkpoint."""
    keys = {
        "noise": {"alpha": 0.7, "beta": 0.7},
        "seed": seed,
        "pictures": False,
        "path": {"data_dir": str(out / "data"), "log_dir": str(out / "exps")},
    }
    return run_once(("ce", "isic2017", "noisy_small"), keys, ("train",)).experiment_folder / "checkpoint.pt"


Cases = Sequence[tuple[ImageCase, np.ndarray]]  # images, and their true masks (K, D, H, W)


def mean_dice(methods: Sequence[Method], flips: bool, cases: Cases) -> float:
    """Mean Dice of the images, of the average of some networks."""
    segmenter = AveragedSegmenter(methods, torch.device("cpu"), flips)
    found = []
    for case, truth in cases:
        true = torch.from_numpy(np.ascontiguousarray(truth))
        mask = segmenter.segment(case).masks
        both, either = (mask & true).sum((0, 2, 3)), mask.sum((0, 2, 3)) + true.sum((0, 2, 3))
        found += (2 * both / either).tolist()
    return float(np.mean(found))


def table(networks: Sequence[Method], cases: Cases) -> str:
    """Dice x 100 with and without flips: of each network, their mean, and of the average of all, in Markdown."""
    groups = {f"network {number}": [one] for number, one in enumerate(networks, start=1)}
    scores = {
        name: [100 * mean_dice(each, flips, cases) for flips in (False, True)]
        for name, each in (*groups.items(), ("average of all networks", networks))
    }
    scores["mean of the single networks"] = list(np.mean([scores[name] for name in groups], 0))
    lines = [markdown_row([name, *(f"{value:.1f}" for value in values)]) for name, values in scores.items()]
    return "\n".join([markdown_header(["", "as they are", "with flips"], 1), *lines]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the images, trains and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for data, runs and the table")
    parser.add_argument("--jobs", type=whole(1), default=2, help="processes (default: 2)")
    given = parser.parse_args(arguments)
    make_data(given.out, given.jobs)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    paths = list(parallel_map(partial(train, out=given.out), SEEDS, given.jobs, "networks"))
    networks = [
        load_trained(path, read_trained(path)["settings"], "last", torch.device("cpu")).method for path in paths
    ]
    data = open_dense(DenseConfig(dataset="ISIC2017", size_px=SIZE_PX), str(given.out / "data"))
    text = table(networks, list(data.cases()))
    write_text(given.out / "averaging.md", text)
    logger.info("Dice x 100, mean of %d test images\n\n%s", len(data.ids("test")), text)


if __name__ == "__main__":
    run_main(main)
