"""How well the distribution of brightness tells scans of one kind from changed ones.

    python -m benchmarks.brightness --data DATA --scan 1 2 3 5 8 10 13 15     # some seconds

The brightness profiles of all pairs of the named prepared scans, then of each scan with each other one that was cut,
padded or changed. `frugalseg predict` warns of a scan whose profile is further from those of the annotated scans than
the limit.
"""

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from skimage.exposure import equalize_hist

from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import open_fewshot
from dataloaders.scans.brightness_profile import LIMIT, brightness_profile, profile_distance
from util.cli import run_main
from util.errors import ConfigError
from util.results.tables import markdown_header, markdown_row

logger = logging.getLogger(__name__)

Change = Callable[[np.ndarray], np.ndarray]
PAD_PX = 80
CHANGES: Mapping[str, Change] = {
    "as they are": lambda scan: scan,
    "the middle half of rows and columns": lambda scan: scan[:, _middle(scan.shape[1]), _middle(scan.shape[2])],
    f"{PAD_PX} px of air around": lambda scan: np.pad(
        scan, ((0, 0), *[(PAD_PX, PAD_PX)] * 2), constant_values=scan.min()
    ),
    "first half of the slices": lambda scan: scan[: len(scan) // 2],
    "last half of the slices": lambda scan: scan[len(scan) // 2 :],
    "inverted": np.negative,
    "logarithms": lambda scan: np.log1p(scan - scan.min()),
    "saturated above the 80th percentile": lambda scan: np.minimum(scan, np.quantile(scan, 0.8)),
    "histogram equalised": equalize_hist,
    "gamma 0.4": lambda scan: (scan - scan.min()) ** 0.4,
    "gamma 2.5": lambda scan: (scan - scan.min()) ** 2.5,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the distances of each kind of pairs."""
    given = _parser().parse_args(arguments)
    if len(given.scan) < 2:
        raise ConfigError(f"--scan: {len(given.scan)} given; expected at least two.")
    folder = open_fewshot(FewShotConfig(dataset=given.dataset, label_sets="all", support_idx=(-1,)), given.data).folder
    scans = [folder.image(name).array.astype(np.float64) for name in given.scan]
    lines = [markdown_header(["scans", "pairs", "lowest", "median", "highest", f"above {LIMIT:g}"], 1)]
    for what, change in CHANGES.items():
        values = distances(scans, change)
        cells = [f"{value:.2f}" for value in (min(values), np.median(values), max(values))]
        lines.append(markdown_row([what, str(len(values)), *cells, str(sum(value > LIMIT for value in values))]))
    logger.info("\n%s", "\n".join(lines))


def distances(scans: Sequence[np.ndarray], change: Change) -> list[float]:
    """Of each scan with each other one that was changed."""
    profiles, changed = ([brightness_profile(each) for each in group] for group in (scans, map(change, scans)))
    return [profile_distance(profiles[one], changed[other]) for one, other in permutations(range(len(scans)), 2)]


def _middle(side: int) -> slice:
    return slice(side // 4, side - side // 4)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Any = parser.add_argument
    add("--data", required=True, help="data root, or prepared folder")
    add("--dataset", default="CHAOST2", help="its name or description (default: CHAOST2)")
    add("--scan", nargs="+", required=True, metavar="SCAN", help="at least two")
    return parser


if __name__ == "__main__":
    run_main(main)
