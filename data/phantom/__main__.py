"""Writes synthetic scans or images in the raw layout of a data set, to try everything without data.

frugalseg phantom chaost2 --out raw --scans 8 --size-px 128
frugalseg phantom isic2017 --out raw --scans 40
"""

from collections.abc import Sequence
from pathlib import Path

from data.phantom import FORMATS, write_phantom
from data.phantom.bodies.build import BUILDS
from util.cli import run_main, whole
from util.parser import CommandParser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and writes the phantom."""
    given = make_parser().parse_args(arguments)
    write_phantom(given.dataset, given.out, given.scans, given.size_px, given.seed, given.jobs, given.build)


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("phantom", __doc__ or "")
    parser.add_argument("dataset", choices=FORMATS, metavar="DATASET", help=f"to imitate: {', '.join(FORMATS)}")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--scans", type=whole(1), default=8, help="number of scans or images (default: 8)")
    limits = ", ".join(
        dict.fromkeys(f"{least} to {most}" for least, most in (raw.sizes_px for raw in FORMATS.values()))
    )
    about = f"rows and columns, or shorter side; {limits} of pictures (default: 160)"
    parser.add_argument("--size-px", type=whole(1), default=160, help=about)
    parser.add_argument("--seed", type=whole(0), default=0, help="random seed (default: 0)")
    parser.add_argument("--jobs", type=whole(1), default=1, help="number of processes (default: 1)")
    able = ", ".join(name for name, raw in FORMATS.items() if raw.has_builds)
    about = f"varied: from lean to obese, for {able} (default: standard)"
    parser.add_argument("--build", choices=BUILDS, default="standard", help=about)
    return parser


if __name__ == "__main__":
    run_main(main)
