r"""Prints the Slurm job script of one or many training runs; `--submit` also submits it.

    frugalseg launch --site frontier --mode runs --account ABC123 --environment /path/to/conda_env \
        --sweep eval_fold=0,1,2,3,4 label_sets=0,1 -- alpnet chaost2 setting2
    frugalseg launch --site nvidia --mode one --nodes 2 -- alpnet chaost2 setting2 batch_size=4

--mode runs: independent runs, one per GPU, as a job array if they do not fit into one job; each trains and validates.
--runs FILE: the runs of a list, see `python -m util.launch.item --help`.
With --collect, a final job creates the table of results once all jobs have succeeded.
--mode one: a single distributed run on all GPUs of the nodes.
A job that reaches its time limit or is preempted saves a checkpoint, is requeued and resumes.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from util.cli import one_line, run_main, whole
from util.errors import ConfigError
from util.files import write_text
from util.launch.jobs import Job, collect_script, training_script
from util.launch.sites import read_site, site_names
from util.parser import CommandParser, add_json, print_json

MAIN_OPTIONS = ("site", "mode", "sweep", "nodes", "account", "partition", "time", "environment", "collect", "submit")
LIST_OPTIONS = ("sweep", "sbatch", "settings")
NOT_RENDERED = ("--submit", "--json")  # they leave the scripts as they are


@dataclass(frozen=True)
class Submitted:
    """Where the scripts were stored, and the job that Slurm has made of each."""

    folder: Path
    jobs: dict[str, str]

    def __str__(self) -> str:
        """A line with the job ids."""
        return f"submitted: {', '.join(f'{name} is job {id_}' for name, id_ in self.jobs.items())} ({self.folder})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the job scripts; with --submit also submits them, with --json as one document."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    given = vars(make_parser().parse_args(arguments))
    submits, collects, is_asked = given.pop("submit"), given.pop("collect"), given.pop("json")
    lists = {name: tuple(given.pop(name)) for name in LIST_OPTIONS}
    job = Job(site=read_site(given.pop("site")), **lists, **given)
    rendered_by = shlex.join(
        ["frugalseg", "launch", *(argument for argument in arguments if argument not in NOT_RENDERED)]
    )
    scripts = {"job.sbatch": training_script(job, rendered_by)}
    if collects:
        scripts["collect.sbatch"] = collect_script(job)
    if not is_asked:
        sys.stdout.write("\n".join(scripts.values()))
    submitted = submit(scripts, Path(job.log_folder).expanduser()) if submits else None
    if is_asked:
        print_json({"scripts": scripts, "submitted": submitted and asdict(submitted)})
    elif submitted:
        sys.stdout.write(f"\n{submitted}\n")
    return 0


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("launch", __doc__ or "", MAIN_OPTIONS)
    parser.add_argument("--site", required=True, help=f"{', '.join(site_names())}, or the path of your own .toml file")
    parser.add_argument("--mode", required=True, choices=("runs", "one"), help="independent runs, or one")
    parser.add_argument("--sweep", nargs="+", default=[], metavar="KEY=VALUE,VALUE", help="run all combinations")
    parser.add_argument("--runs", default="", metavar="FILE", help="a line per run, in place of --sweep")
    parser.add_argument("--finished", default="", metavar="FOLDER", help="record runs there, and skip recorded ones")
    parser.add_argument("--nodes", type=whole(1), default=1, help="nodes per job (default: 1)")
    for name in ("gpus-per-node", "cores-per-task", "runs-per-job"):
        parser.add_argument(f"--{name}", type=whole(1), default=0, metavar="N", help="(default: set by the site)")
    parser.add_argument("--at-once", type=whole(1), default=0, metavar="N", help="limit of array jobs running at once")
    for name in ("account", "partition", "qos", "time"):
        kind = one_line("a time limit" if name == "time" else f"the name of the {name}", is_word=True)
        parser.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help="(default: set by the site)")
    for name in ("environment", "scratch"):
        parser.add_argument(
            f"--{name}", type=one_line("a folder"), default=argparse.SUPPRESS, help="(default: set by the site)"
        )
    parser.add_argument(
        "--sbatch",
        type=one_line("an option"),
        action="append",
        default=[],
        metavar="OPTION",
        help="extra option, repeatable",
    )
    parser.add_argument("--train-only", action="store_true", help="skip validation")
    parser.add_argument("--collect", action="store_true", help="add a final job that creates the table of results")
    parser.add_argument("--submit", action="store_true", help="submit the jobs after printing them")
    add_json(parser)
    parser.add_argument(
        "settings", nargs="*", metavar="WORD", help="named configs and KEY=VALUE, as after `frugalseg train`"
    )
    return parser


def submit(scripts: dict[str, str], folder: Path) -> Submitted:
    """Writes the scripts to a new subfolder of `folder` and submits them; the second depends on the first.

    Raises:
        ConfigError: Slurm is not installed, or it rejected a job.
    """
    subfolder = _new_subfolder(folder)
    ids: list[str] = []
    for name, text in scripts.items():
        write_text(subfolder / name, text)
        dependency = [f"--dependency=afterok:{ids[0]}", "--kill-on-invalid-dep=yes"] if ids else []
        ids.append(_sbatch([*dependency, str(subfolder / name)]))
    return Submitted(subfolder, dict(zip(scripts, ids, strict=True)))


def _new_subfolder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        subfolder = folder / f"{number:03d}"
        try:
            subfolder.mkdir()
        except FileExistsError:
            continue
        return subfolder
    raise ConfigError(f"{folder}: no free folder number.")


def _sbatch(arguments: list[str]) -> str:
    command = ["sbatch", "--parsable", *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ConfigError(
            "sbatch: not found. Submit on a login node of the cluster, or copy the printed script there and run sbatch."
        ) from error
    if result.returncode:
        raise ConfigError(
            f"Slurm rejected {arguments[-1]}: {result.stderr.strip()}. Change the option that it names (the script "
            "shows all options), then run the same command again."
        )
    return result.stdout.strip().partition(";")[0]


if __name__ == "__main__":
    run_main(main)
