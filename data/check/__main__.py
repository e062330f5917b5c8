"""`python -m data.check FOLDER --dataset CHAOST2 [--scale MIDDLE] [--fold 0]`: a line per finding, with its remedy."""

import argparse
import logging
from pathlib import Path

from data.check import check_folder
from data.regions import SCALES
from dataloaders.catalog import dataset
from util.cli import run_main

log = logging.getLogger("data.check")


def main() -> int:
    """Reads the command line and checks; returns 1 where there are errors, else 0."""
    parser = argparse.ArgumentParser(prog="python -m data.check", description="Looks a prepared folder over.")
    parser.add_argument("folder", type=Path, help="prepared folder")
    parser.add_argument("--dataset", required=True, help="CHAOST2 or SABS")
    parser.add_argument("--scale", default="MIDDLE", choices=(*SCALES, "none"), help="pseudo-labels (default MIDDLE)")
    parser.add_argument("--fold", type=int, help="also check this fold's train, query and support scans")
    parser.add_argument("--jobs", type=int, default=2, help="files read at a time (default 2)")
    given = parser.parse_args()
    scale = None if given.scale == "none" else given.scale
    findings = check_folder(given.folder, dataset(given.dataset), scale, given.fold, jobs=given.jobs)
    for finding in findings:
        log.info("%s", finding)
    n_errors = sum(finding.severity == "error" for finding in findings)
    log.info("%s: %d error(s), %d warning(s)", given.folder, n_errors, len(findings) - n_errors)
    return 1 if n_errors else 0


if __name__ == "__main__":
    run_main(main)
