# PYTHON_ARGCOMPLETE_OK
"""The command `frugalseg`: one table of all commands. A module is imported only when its command runs.

frugalseg                          # the commands
frugalseg prepare --help           # one of them
frugalseg train alpnet chaost2     # the same as: python training.py with alpnet chaost2
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from util.cli import run_main


@dataclass(frozen=True)
class Command:
    """A command of `frugalseg`.

    Attributes:
        group: heading in the list of commands.
        summary: what it does, on one line.
        example: words after the command.
        module: has `main(arguments)`, which returns the exit code (None: 0), and, with argparse, `make_parser()`.
        leading: words before those of the user; the first one names a command of Sacred.
    """

    group: str
    summary: str
    example: str
    module: str
    leading: tuple[str, ...] = ()


# fmt: off
COMMANDS = {
    "describe": Command(
        "data", "draft a description of your own data",
        "my_folder --out my_set.json5", "data.describe.__main__",
    ),
    "prepare": Command("data", "prepare scans or images", "my_set.json5 --out data", "data.prepare.__main__"),
    "check": Command("data", "validate prepared data", "my_set.json5 --data-dir data", "data.check.__main__"),
    "pictures": Command(
        "data", "write a page with every case",
        "my_set.json5 --data-dir data", "data.pictures.__main__",
    ),
    "superpixels": Command("data", "compute superpixels", "isic2017 --jobs 8", "data.superpixels.__main__"),
    "noise": Command(
        "data", "simulate wrong masks, for studies",
        "isic2017 --alpha 0.7 --beta 0.7", "data.noise.__main__",
    ),
    "phantom": Command("data", "write synthetic raw data", "chaost2 --out raw", "data.phantom.__main__"),
    "train": Command(
        "training", "train a method, or resume",
        "alpnet chaost2 setting2 eval_fold=0", "training", ("train",),
    ),
    "presets": Command("training", "list the published runs", "isic2017 tloss", "models.presets.__main__"),
    "probabilities": Command(
        "training", "write probabilities for two-pass superpixels",
        "baseline jsrt_lung", "validation", ("probabilities",),
    ),
    "pseudo-labels": Command(
        "training", "write labels of what is not annotated",
        "fundus partial_generator", "validation", ("export",),
    ),
    "predict": Command(
        "prediction", "segment your images or scans",
        "--checkpoint checkpoint.pt --images my_images --out results", "models.predict",
    ),
    "export": Command(
        "prediction", "export a network to share it", "checkpoint.pt --out my_model", "models.export.__main__",
    ),
    "validate": Command(
        "results", "score a trained method",
        "alpnet chaost2 setting2 eval_fold=0", "validation", ("validate",),
    ),
    "collect": Command("results", "tables of all validations", "path.log_dir=exps", "validation", ("collect",)),
    "report": Command(
        "results", "write a page of a run, or compare runs",
        "exps/my_experiment", "util.results.report.__main__",
    ),
    "runs": Command("results", "list all runs, or write a page of them", "exps --html runs.html", "util.results.runs"),
    "suspects": Command(
        "results", "rank the masks that may be wrong",
        "baseline isic2017", "validation", ("suspects",),
    ),
    "device": Command("machines", "report devices and versions", "--json", "util.runtime.device"),
    "launch": Command(
        "machines", "print or submit Slurm jobs",
        "--site nvidia --mode runs --sweep eval_fold=0,1 -- alpnet chaost2", "util.launch.__main__",
    ),
    "demo": Command("machines", "run everything once on a phantom", "--out demo", "util.demo"),
}
# fmt: on
WORDS_HELP = """usage: frugalseg {name} [NAME ...] [KEY=VALUE ...] [FILE.yaml ...] [options]

What it does: {summary}.
Words are named configurations, settings and files of settings.

    frugalseg {name} {example}

  named configurations:  frugalseg {name} print_named_configs
  all keys and values:   frugalseg {name} print_config {example}
  published runs:        frugalseg presets
  nested keys:           optim.lr=0.01; lists: 'test_domains=[A,B]'
  files of settings:     mine.yaml, mine.json or mine.json5

options:
  -h, --help               show this page
  -u, --unobserved         store no record of the run
  -l, --loglevel LEVEL     such as DEBUG or WARNING
  -c, --comment COMMENT    stored with the run
  -j, --json               print one JSON document on stdout, all else on stderr
  -F, --file_storage DIR   also store the record of the run there
  -D, --pdb                start the debugger at an error
Sacred has more: python {module}.py --help
"""


def main() -> None:
    """The entry point of the console script."""
    run_main(lambda: dispatch(sys.argv[1:]))


def dispatch(arguments: Sequence[str]) -> int | None:
    """Runs the command that the first word names; returns its exit code."""
    if "_ARGCOMPLETE" in os.environ:
        from util.completion import complete

        complete(COMMANDS, lambda: importlib.import_module("config_ssl_upload").known_words())
    name, *words = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean `{close[0]}`?" if close else "`frugalseg --help` lists all."
        sys.stderr.write(f"frugalseg: error: no command {name!r}. {hint}\n")
        return 2
    command = COMMANDS[name]
    if command.leading and {"-h", "--help"} & set(words):
        sys.stdout.write(WORDS_HELP.format(name=name, **vars(command)))
        return 0
    return importlib.import_module(command.module).main([*command.leading, *words])


def overview() -> str:
    """The commands by group, a line each."""
    lines = ["usage: frugalseg COMMAND ...", ""]
    for group, members in groupby(COMMANDS, lambda name: COMMANDS[name].group):
        lines += [f"{group}:", *(f"  {name:<15}{COMMANDS[name].summary}" for name in members)]
    return "\n".join([*lines, "", "One of them: frugalseg COMMAND --help", ""])


if __name__ == "__main__":
    main()
