"""The command line of the report pages.

python -m util.results.report exps/EXPERIMENT/validation/1      # report.html in that folder
python -m util.results.report exps/EXPERIMENT                   # its last validation
python -m util.results.report RUN RUN --out comparison.html     # case by case, against the first one
"""

import argparse
import logging
from pathlib import Path

from util.cli import run_main
from util.results.report.compare import default_place, save_comparison
from util.results.report.page import save_report
from util.results.report.runs import find_run

logger = logging.getLogger(__name__)


def main() -> None:
    """Parses the command line and writes the page.

    Raises:
        DataError: there is no such run, or it cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="python -m util.results.report", description="Writes the page of a run, or compares runs."
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, its experiment or scores.csv"
    )
    parser.add_argument("--out", type=Path, help="the page; default: in the run's folder, or in that of all runs")
    options = parser.parse_args()
    if len(options.runs) == 1:
        page = save_report(find_run(options.runs[0]), options.out)
    else:
        page = save_comparison(options.runs, options.out or default_place(options.runs))
    logger.info("%s (%.1f MB)", page, page.stat().st_size / 1e6)


if __name__ == "__main__":
    run_main(main)
