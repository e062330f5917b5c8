"""Lists all runs below a folder or in a database, newest first, in the terminal or as a page for a browser.

    frugalseg runs exps
    frugalseg runs exps --html exps/runs.html
    frugalseg runs exps --filter method=alpnet status=failed 'start=2026-11-*' --sort score
    frugalseg runs --store sql:sqlite:////home/me/runs.db --json

Runs of training.py and validation.py are read, and those of any other program that uses Sacred, such as the code of
SSL-ALPNet's authors. A run that claims to be running but has sent no heartbeat for some minutes has "died"; "broken"
ones have no complete record. See docs/runs.md.
"""

import argparse
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from util.cli import number, run_main
from util.parser import CommandParser, add_json, print_json, print_text
from util.results.run_index import DIED_AFTER_S, Run, read_database, read_folder
from util.results.run_list import distinguishing, ordered, select, to_record, to_text
from util.results.runs_page import save_page

logger = logging.getLogger(__name__)

DEFAULT_FOLDER = Path("exps")  # path.log_dir


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the list; with --html also writes the page."""
    given = make_parser().parse_args(arguments)
    runs = ordered(select(_read(given), given.filter), given.sort, given.reverse)
    differing = distinguishing(runs)
    if given.html:
        save_page(given.html, runs, differing)
    if given.json:
        print_json([to_record(run, differing) for run in runs])
    elif runs:
        print_text(to_text(runs, differing))
    else:
        logger.warning("no runs found. A run is a folder with run.json, at any depth; filters may exclude all.")
    if given.html:
        logger.info("%d runs: %s", len(runs), given.html)
    return 0


def _read(given: argparse.Namespace) -> list[Run]:
    now, died_after_s = datetime.now(UTC), 60 * given.died_after
    runs = [run for store in given.store for run in read_database(store, now, died_after_s)]
    folder = given.folder or (None if given.store else DEFAULT_FOLDER)
    return runs if folder is None else runs + read_folder(folder, now, died_after_s)


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("runs", __doc__ or "")
    add = parser.add_argument
    add("folder", type=Path, nargs="?", metavar="DIR", help="folder of runs, at any depth (default: exps)")
    add("--store", action="append", default=[], metavar="URL", help="sql:... or mongodb://..., as the key `store`")
    add("--html", type=Path, metavar="PAGE", help="also write a page that sorts and filters; needs no network")
    add_json(parser)
    add("--sort", default="start", metavar="COLUMN", help="or a setting, such as eval_fold (default: start)")
    add("--reverse", action="store_true", help="the other way round")
    text = "only runs with this value in a column or setting; * stands for any text"
    add("--filter", type=_condition, nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text)
    text = f"minutes without a heartbeat after which a run counts as dead (default: {DIED_AFTER_S / 60:g})"
    add("--died-after", type=number(above=0.0), default=DIED_AFTER_S / 60, metavar="MINUTES", help=text)
    return parser


def _condition(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KEY=VALUE, such as status=failed")
    return key, value


if __name__ == "__main__":
    run_main(main)
