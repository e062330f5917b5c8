"""`python -m data.check FOLDER --dataset CHAOST2`: a line per finding, with its remedy.

python -m data.check data/CHAOST2/chaos_MR_T2_normalized --dataset CHAOST2 [--scale MIDDLE] [--fold 0]
python -m data.check data/JSRT/prepared_256px --dataset JSRT [--structure lung] [--noise 0.7 0.7] [--superpixels]
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from data.check import check_folder
from data.check.images import check_images
from data.check.rules import Finding
from data.superpixels.regions import SCALES
from dataloaders.catalog import dataset, dataset_names
from dataloaders.images.folder import NoiseConfig, SuperpixelConfig
from util.cli import run_main
from util.errors import ConfigError

VOLUME_OPTIONS, IMAGE_OPTIONS = ("scale", "fold"), ("structure", "noise", "superpixels")

log = logging.getLogger("data.check")


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and checks; returns 1 where there are errors, else 0."""
    parser = _parser()
    given = parser.parse_args(arguments)
    is_image_set = dataset(given.dataset).kind == "images"
    for name in VOLUME_OPTIONS if is_image_set else IMAGE_OPTIONS:
        if getattr(given, name) != parser.get_default(name):
            kind = "volumes" if is_image_set else "single images"
            raise ConfigError(f"--{name}: only for sets of {kind}. Leave it out for {given.dataset}.")
    findings = _check_images(given) if is_image_set else _check_volumes(given)
    for finding in findings:
        log.info("%s", finding)
    n_errors = sum(finding.severity == "error" for finding in findings)
    log.info("%s: %d error(s), %d warning(s)", given.folder, n_errors, len(findings) - n_errors)
    return 1 if n_errors else 0


def _check_volumes(given: argparse.Namespace) -> list[Finding]:
    scale = None if given.scale == "none" else given.scale
    return check_folder(given.folder, dataset(given.dataset), scale, given.fold, jobs=given.jobs)


def _check_images(given: argparse.Namespace) -> list[Finding]:
    noise = NoiseConfig(*given.noise) if given.noise else None
    superpixel = SuperpixelConfig() if given.superpixels else None
    return check_images(given.folder, dataset(given.dataset, "images"), given.structure, noise, superpixel, given.jobs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="prepared folder")
    add("--dataset", required=True, help=", ".join(dataset_names()))
    add("--scale", default="MIDDLE", choices=(*SCALES, "none"), help="pseudo-labels of volumes (default MIDDLE)")
    add("--fold", type=int, help="volumes: also check this fold's train, query and support scans")
    add("--structure", nargs="+", default=[], metavar="NAME", help="images: whose masks (default: of all structures)")
    add("--noise", type=float, nargs=2, metavar=("ALPHA", "BETA"), help="images: also check these noisy masks")
    add("--superpixels", action="store_true", help="images: also check the superpixels")
    add("--jobs", type=int, default=2, help="files read at a time (default 2)")
    return parser


if __name__ == "__main__":
    run_main(main)
