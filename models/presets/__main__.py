"""Lists the published runs: words for `frugalseg train`, source, hardware, Dice to expect.

frugalseg presets                       # all of them
frugalseg presets isic2017 tloss 0.7    # those whose line holds all of these words
"""

from collections.abc import Sequence
from dataclasses import asdict

from models.presets import noisy, several_tasks, sources
from util.cli import run_main
from util.parser import CommandParser, add_json, print_json, print_text


def main(arguments: Sequence[str] | None = None) -> None:
    """Lists the published runs whose line holds all the words."""
    given = make_parser().parse_args(arguments)
    runs = (*noisy.published_runs(), *sources.published_runs(), *several_tasks.published_runs())
    lines = {f"{run.words:<55} {run.source}; {run.hardware}; Dice {run.expected}": run for run in runs}
    found = {line: run for line, run in lines.items() if all(word in line for word in given.words)}
    if given.json:
        print_json([asdict(run) for run in found.values()])
        return
    print_text("".join(f"{line}\n" for line in found))


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("presets", __doc__ or "")
    parser.add_argument("words", nargs="*", metavar="WORD", help="of a data set, a method, a noise level, ...")
    add_json(parser)
    return parser


if __name__ == "__main__":
    run_main(main)
