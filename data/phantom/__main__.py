"""`python -m data.phantom DATASET --out DIR`: made-up scans or images in the raw layout of a data set."""

import argparse
from pathlib import Path

from data.phantom import FORMATS, write_phantom
from util.cli import run_main


def main() -> None:
    """Reads the command line and writes the phantom."""
    parser = argparse.ArgumentParser(prog="python -m data.phantom", description=__doc__)
    parser.add_argument("dataset", choices=FORMATS, help="whose raw layout and modality to imitate")
    parser.add_argument("--out", type=Path, required=True, help="folder to hold the raw layout")
    parser.add_argument("--scans", type=int, default=8, help="how many of the published scans or images (default: 8)")
    sizes = ", ".join(f"{name} {raw.sizes_px[0]} to {raw.sizes_px[1]}" for name, raw in FORMATS.items())
    parser.add_argument("--size-px", type=int, default=160, help=f"rows and columns, or shorter side: {sizes}")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other patients (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes; the result does not depend on it (default: 1)")
    options = parser.parse_args()
    write_phantom(options.dataset, options.out, options.scans, options.size_px, options.seed, options.jobs)


if __name__ == "__main__":
    run_main(main)
