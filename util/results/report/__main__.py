"""Writes the page of a run, or compares runs case by case with the first one.

    frugalseg report exps/EXPERIMENT/validation/1
    frugalseg report exps/EXPERIMENT
    frugalseg report RUN RUN --out comparison.html

An experiment stands for its last validation. The page is one file that needs no network. See docs/reports.md.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from util.cli import run_main
from util.parser import CommandParser
from util.results.report.compare import default_place, save_comparison
from util.results.report.page import save_report
from util.results.report.runs import find_run

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and writes the page.

    Raises:
        DataError: there is no such run, or it cannot be used.
    """
    given = make_parser().parse_args(arguments)
    if len(given.runs) == 1:
        page = save_report(find_run(given.runs[0]), given.out)
    else:
        page = save_comparison(given.runs, given.out or default_place(given.runs))
    logger.info("%s (%.1f MB)", page, page.stat().st_size / 1e6)


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("report", __doc__ or "")
    text = "a run's folder, its experiment or scores.csv"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=text)
    text = "the page (default: report.html in the run's folder; of several, in the folder of all)"
    parser.add_argument("--out", type=Path, metavar="PAGE", help=text)
    return parser


if __name__ == "__main__":
    run_main(main)
