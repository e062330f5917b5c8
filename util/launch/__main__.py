r"""Renders the Slurm job of one or many trainings, and prints it; `--submit` then also submits it.

    python -m util.launch --site frontier --mode runs --account ABC123 --environment /path/to/conda_env \
        --sweep eval_fold=0,1,2,3,4 label_sets=0,1 -- alpnet chaost2 setting2
    python -m util.launch --site nvidia --mode one --nodes 2 -- alpnet chaost2 setting2 batch_size=4

--mode runs: one run per GPU, as an array of jobs if they do not fit into one; each trains and validates. With --collect
a last job, which runs once all have succeeded, makes the table. --mode one: one training on all GPUs of the nodes.
A job that reaches its time limit or is pre-empted saves, returns to the queue and goes on.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from util.cli import run_main
from util.errors import ConfigError
from util.files import write_text
from util.launch.jobs import Job, collecting_script, training_script
from util.launch.sites import read_site, site_names

LISTS = ("sweep", "sbatch", "words")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the scripts; submits them if asked to."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    given = vars(_parser().parse_args(arguments))
    is_submitted, is_collected = given.pop("submit"), given.pop("collect")
    lists = {name: tuple(given.pop(name)) for name in LISTS}
    job = Job(site=read_site(given.pop("site")), **lists, **given)
    rendered_by = shlex.join(["python", "-m", "util.launch", *(word for word in arguments if word != "--submit")])
    scripts = {"job.sbatch": training_script(job, rendered_by)}
    if is_collected:
        scripts["collect.sbatch"] = collecting_script(job)
    sys.stdout.write("\n".join(scripts.values()))
    if is_submitted:
        sys.stdout.write(f"\n{submit(scripts, Path(job.log_folder).expanduser())}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m util.launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--site", required=True, help=f"{', '.join(site_names())}, or a .toml file of your own")
    parser.add_argument("--mode", required=True, choices=("runs", "one"))
    parser.add_argument("--sweep", nargs="+", default=[], metavar="KEY=VALUE,VALUE", help="runs all combinations")
    parser.add_argument("--nodes", type=int, default=1, help="of a job (default: 1)")
    for name in ("gpus-per-node", "cores-per-task", "runs-per-job"):
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help="(default: the site's)")
    parser.add_argument("--at-once", type=int, default=0, metavar="N", help="jobs of the array that may run together")
    for name in ("account", "partition", "qos", "time", "environment", "scratch"):
        parser.add_argument(f"--{name}", default="", help="(default: the site's)")
    parser.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="a further option, repeatable")
    parser.add_argument("--train-only", action="store_true", help="without validation")
    parser.add_argument("--collect", action="store_true", help="a last job that makes the table")
    parser.add_argument("--submit", action="store_true", help="submit after printing")
    parser.add_argument("words", nargs="*", help="what follows `training.py with`")
    return parser


def submit(scripts: dict[str, str], folder: Path) -> str:
    """Writes the scripts into a new folder below `folder` and submits them; a second one waits for the first.

    Returns:
        A line that names the jobs.

    Raises:
        ConfigError: there is no Slurm here, or it refuses a job.
    """
    place = _new_folder(folder)
    ids: list[str] = []
    for name, text in scripts.items():
        write_text(place / name, text)
        after = [f"--dependency=afterok:{ids[0]}", "--kill-on-invalid-dep=yes"] if ids else []
        ids.append(_sbatch([*after, str(place / name)]))
    return f"submitted: {', '.join(f'{name} is job {id_}' for name, id_ in zip(scripts, ids, strict=True))} ({place})"


def _new_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        place = folder / f"{number:03d}"
        try:
            place.mkdir()
        except FileExistsError:
            continue
        return place
    raise ConfigError(f"{folder}: no free number.")


def _sbatch(arguments: list[str]) -> str:
    command = ["sbatch", "--parsable", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ConfigError(
            "sbatch: not found. Submit on a login node of the cluster, or take the printed script there and sbatch it."
        ) from error
    if done.returncode:
        raise ConfigError(
            f"Slurm refuses {arguments[-1]}: {done.stderr.strip()}. Change the option that it names (the script shows "
            "them all), then run the same command again."
        )
    return done.stdout.strip().partition(";")[0]


if __name__ == "__main__":
    run_main(main)
