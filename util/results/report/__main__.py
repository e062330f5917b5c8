"""Writes the page of a run, or compares runs case by case with the first one.

    frugalseg report exps/EXPERIMENT/validation/1
    frugalseg report exps/EXPERIMENT
    frugalseg report RUN RUN --out comparison.html

An experiment stands for its last validation. The page is one file that needs no network. See docs/reports.md.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from util.cli import run_main
from util.parser import CommandParser, add_json, print_json
from util.results.report.cases import group_cases
from util.results.report.compare import compare_runs, default_place
from util.results.report.page import save_report
from util.results.report.runs import find_run, read_run

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and writes the page.

    Raises:
        DataError: there is no such run, or it cannot be used.
    """
    given = make_parser().parse_args(arguments)
    if len(given.runs) == 1:
        folder = find_run(given.runs[0])
        page, told = save_report(folder, given.out), _told(folder) if given.json else {}
    else:
        compared = compare_runs(given.runs)
        page, told = compared.save(given.out or default_place(given.runs)), compared.to_json()
    logger.info("%s (%.1f MB)", page, page.stat().st_size / 1e6)
    if given.json:
        print_json({"page": page} | told)


def _told(folder: Path) -> dict[str, Any]:
    """What the page of a run tells, for `--json`."""
    run = read_run(folder)
    record = run.record
    return {
        "run": folder,
        "title": record.title,
        "cases": record.n_cases,
        "failed": record.failed,
        "headline": record.headline and asdict(record.headline),
        "scores": [
            {"conditions": group.conditions, "metric": group.title_of_metric, "means": group.means}
            for group in group_cases(run.scores)
        ],
        "warnings": [*record.missing, *run.warnings],
    }


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("report", __doc__ or "")
    text = "a run's folder, its experiment or scores.csv"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=text)
    text = "the page (default: report.html in the run's folder; of several, in the folder of all)"
    parser.add_argument("--out", type=Path, metavar="PAGE", help=text)
    add_json(parser)
    return parser


if __name__ == "__main__":
    run_main(main)
