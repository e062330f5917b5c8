"""Writes a page with a picture of every case of a prepared set.

TARGET is the name of a built-in set, the description of your own data, or a prepared folder.

    frugalseg pictures my_set.json5 --data-dir data
    frugalseg pictures data/JSRT/prepared_256px --cases 60 --out jsrt.html
    frugalseg pictures isic2017 --suspects FOLDER/suspects.csv

The page is one file that needs no network: the expert's outlines, superpixels, noisy masks and pseudo-labels, with
filters by split and class. Scans are shown by the slice with the largest labelled area. See docs/reports.md.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from data.pictures import FILE_NAME, SOURCES, save_page
from data.pictures.choice import read_suspects
from data.prepare.steps import add_target, refuse_options, resolve_target
from util.cli import run_main, whole
from util.items import exit_code
from util.parser import CommandParser, add_json, print_json

MAIN_OPTIONS = ("data_dir", "out", "cases", "pseudo_labels", "suspects", "jobs", "json")
IMAGE_OPTIONS = ("size_px", "suspects")

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and writes the page; returns 1 where cases could not be read, else 0.

    Raises:
        ConfigError: an option that is not for this kind of set.
        DataError: nothing is prepared there, or no case can be read.
    """
    parser = make_parser()
    given = parser.parse_args(arguments)
    spec, folder = resolve_target(given.target, given.data_dir, given.dataset, given.size_px)
    if spec.kind == "scans":
        refuse_options(given, parser, IMAGE_OPTIONS, "not for sets of scans")
    source = SOURCES[spec.kind](spec, folder, given.pseudo_labels)
    known = {case_id for ids in source.splits.values() for case_id in ids}
    suspects = read_suspects(given.suspects, known) if given.suspects else None
    page = given.out or folder / FILE_NAME
    failures = save_page(source, page, given.cases, suspects, given.jobs)
    logger.info("%s (%.1f MB)", page, page.stat().st_size / 1e6)
    if given.json:
        print_json({"page": page, "failed": failures})
    return exit_code(failures, "not shown")


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("pictures", __doc__ or "", MAIN_OPTIONS)
    add_target(parser)
    add = parser.add_argument
    add("--out", type=Path, metavar="FILE.html", help=f"the page (default: {FILE_NAME} in the prepared folder)")
    add("--cases", type=whole(1), default=200, metavar="N", help="show at most so many (default: 200)")
    add("--pseudo-labels", type=Path, metavar="FOLDER", help="also show what `frugalseg pseudo-labels` has written")
    add("--suspects", type=Path, metavar="FILE.csv", help="images: table of `frugalseg suspects`; the worst come first")
    add("--jobs", type=whole(1), default=1, help="processes (default: 1)")
    add_json(parser)
    return parser


if __name__ == "__main__":
    run_main(main)
