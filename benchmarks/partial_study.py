"""The ladder of several partly labelled data sets without downloads: simple pictures, one task labelled in each set.

python -m benchmarks.partial_study --out study --jobs 2      # the table in docs/partial_labels.md

Every picture shows a line, bright and dark blobs, and a disc with a cup. Three sets with a colour cast each are trained
on: one labels the lines, one the blobs, one disc and cup. Scored are new pictures with all structures labelled, of the
three casts and of one that was never seen: only these show what a network says of structures that a training set does
not label. Completed runs are not repeated.
"""

import argparse
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.runs import run_once
from data.phantom.simple import STRUCTURES, make_picture
from data.prepare.__main__ import main as prepare
from dataloaders.io.png import write_png
from util.cli import parallel_map, run_main, whole
from util.files import write_json, write_text
from util.results.scores import FILE_NAME, csv_text, read_scores

logger = logging.getLogger(__name__)

SIZE_PX, N_STEPS = 64, 400
N_TRAIN, N_SCORED = 40, 20
UNEVENNESS = 0.05
TASKS = {"lines": ("line",), "blobs": ("bright", "dark"), "discs": ("disc", "cup")}
RELATIONS = {"blobs": "exclusive", "discs": "nested"}
CASTS = {
    "lines": (-0.04, 0.0, 0.06),
    "blobs": (0.06, -0.02, 0.0),
    "discs": (-0.04, 0.06, 0.0),
    "unseen": (0.05, 0.05, 0.05),
}
SEEDS = (0, 1, 2)

NETWORK = {"encoder": "test_convnext", "channels": 16}
DISCRIMINATOR = {"discriminator": {"channels": 16}}

SECOND_STAGE: dict[str, dict[str, Any]] = {
    "+ pseudo-labels": {"adversarial_weight": 0.0, "attention": False},
    "+ adversarial": {"attention": False} | DISCRIMINATOR,
    "PSSNet: + attention": DISCRIMINATOR,
}
GENERATOR, EXPERTS = "One head per task (stage 1)", "Single-task experts"
NAIVE, TEACHER = "Missing as background", "Averaged teacher"
LINES = (EXPERTS, NAIVE, GENERATOR, *SECOND_STAGE, TEACHER)
LONGEST_FIRST = (*reversed(SECOND_STAGE), TEACHER, NAIVE, GENERATOR, EXPERTS)  # so that no process waits for another


class Job(NamedTuple):
    """One training with its validation."""

    line: str
    word: str
    keys: Mapping[str, Any]
    seed: int
    commands: tuple[str, ...] = ("train", "validate")


def complete_name(cast: str) -> str:
    """The set of new pictures of a cast with all structures labelled."""
    return f"{cast}-complete"


def write_set(out: Path, name: str, cast: str, structures: Sequence[str], numbers: Mapping[str, int]) -> Path:
    """Writes pictures with the masks of some structures as one's own data; returns the description.

    Args:
        out: the folder in which the set's folder is created.
        name: of the set.
        cast: a key of `CASTS`.
        structures: that are labelled.
        numbers: pictures of each split, `train` or `test`.
    """
    folder, rows = out / name, []
    first = 10_000 * (list(CASTS).index(cast) + 1) + 1000 * (len(structures) == len(STRUCTURES))
    splits = [split for split, number in numbers.items() for _ in range(number)]
    for index, split in enumerate(splits):
        made, picture = make_picture(first + index, SIZE_PX, CASTS[cast], UNEVENNESS), f"{name}{index}"
        write_png(folder / "images" / f"{picture}.png", made.image)
        row = {"id": picture, "image": f"images/{picture}.png", "split": split}
        for structure in structures:
            write_png(folder / structure / f"{picture}.png", made.masks[structure].astype(np.uint8) * 255)
            row[f"mask:{structure}"] = f"{structure}/{picture}.png"
        rows.append(row)
    write_text(folder / "files.csv", csv_text(tuple(rows[0]), rows))
    description = folder / f"{name}.json5"
    write_json(description, {
        "name": name, "kind": "images", "channels": 3, "files": "files.csv",
        "classes": [{"name": each} for each in structures],
        "tasks": [
            {"name": task, "classes": list(names), "relation": RELATIONS.get(task, "independent")}
            for task, names in TASKS.items() if set(names) <= set(structures)
        ],
        "grid": {"size_px": SIZE_PX},
    })  # fmt: skip
    return description


def make_data(out: Path) -> tuple[list[str], list[str]]:
    """Makes and prepares all sets; returns the descriptions of those that are trained on, and of the complete ones."""
    raw = out / "raw"
    trained = [write_set(raw, name, name, structures, {"train": N_TRAIN}) for name, structures in TASKS.items()]
    numbers = {"train": 1, "test": N_SCORED}  # a set needs an image to train on
    complete = [write_set(raw, complete_name(cast), cast, STRUCTURES, numbers) for cast in CASTS]
    for path in (*trained, *complete):
        prepare([f"{path}", "--out", f"{out / 'data'}", "--size-px", f"{SIZE_PX}"])
    return [str(path) for path in trained], [str(path) for path in complete]


def first_jobs(seed: int, trained: Sequence[str], labels: Path) -> list[Job]:
    """All that needs no pseudo-labels."""
    experts = [Job(EXPERTS, "partial_generator", {"datasets": [path]}, seed) for path in trained]
    whole_sets = {"datasets": list(trained)}
    export = whole_sets | {"export_to": str(labels / f"seed{seed}")}
    return [
        Job(GENERATOR, "partial_generator", export, seed, ("train", "export", "validate")),
        *experts,
        Job(NAIVE, "partial_naive", whole_sets, seed),
        Job(TEACHER, "partial_teacher", whole_sets, seed),
    ]


def second_jobs(seed: int, trained: Sequence[str], labels: Path) -> list[Job]:
    """The steps of the second stage, on the pseudo-labels of the first."""
    common = {"datasets": list(trained), "pseudo_labels": str(labels / f"seed{seed}")}
    return [Job(line, "partial_adversarial", keys | common, seed) for line, keys in SECOND_STAGE.items()]


Scores = dict[tuple[str, str], float]  # data set, structure -> mean Dice of its images


def run(job: Job, out: Path, complete: Sequence[str]) -> Scores:
    """Trains, exports and validates, or reads the scores of an earlier run."""
    keys = dict(job.keys) | {
        "size_px": SIZE_PX,
        "crop_px": SIZE_PX,
        "n_steps": N_STEPS,
        "network": NETWORK,
        "scored": list(complete),
        "seed": job.seed,
        "surface_scores": False,
        "pictures": False,
        "path": {"data_dir": str(out / "data"), "log_dir": str(out / "exps")},
    }
    settings = run_once((job.word, "partial_small"), keys, job.commands)
    newest = max(
        (settings.experiment_folder / "validation").glob(f"*/{FILE_NAME}"), key=lambda path: int(path.parent.name)
    )
    scores = read_scores(newest)
    dice = scores[(scores["metric"] == "dice") & (scores["case"] != "")]
    means = dice.groupby(["dataset", "structure"])["value"].mean()
    return {(str(name), str(structure)): float(value) for (name, structure), value in means.items()}  # type: ignore[misc] - an index of pairs


def columns() -> dict[str, list[tuple[str, str]]]:
    """Heading -> the pairs of data set and structure over which it is the mean."""
    foreign = {
        task: [(complete_name(other), name) for other in TASKS if other != task for name in names]
        for task, names in TASKS.items()
    }
    return {
        "labelled in the set": [(complete_name(task), name) for task, names in TASKS.items() for name in names],
        "labelled in another": [pair for pairs in foreign.values() for pair in pairs],
        "unseen cast": [(complete_name("unseen"), name) for name in STRUCTURES],
        **{f"{task}, labelled in another": pairs for task, pairs in foreign.items()},
    }


def table(found: Mapping[tuple[str, int], Scores]) -> str:
    """Dice x 100 of each line, mean ± standard deviation over seeds, in Markdown."""
    headings = columns()
    seeds = sorted({seed for _, seed in found})
    text = [f"| | {' | '.join(headings)} |", f"|---|{'---:|' * len(headings)}"]
    for line in LINES:
        cells = []
        for pairs in headings.values():
            values = [100 * np.nanmean([found[line, seed][pair] for pair in pairs]) for seed in seeds]
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(seeds) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}")
        text.append(f"| {line} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def gather(jobs: Iterable[Job], scores: Iterable[Scores]) -> dict[tuple[str, int], Scores]:
    """Line and seed -> scores; the experts' are put together."""
    found: dict[tuple[str, int], Scores] = {}
    for job, one in zip(jobs, scores, strict=True):
        found.setdefault((job.line, job.seed), {}).update(one)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the pictures, runs all jobs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for data, runs and tables")
    parser.add_argument("--jobs", type=whole(1), default=2, help="processes (default: 2)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="one training each (default: 0 1 2)")
    given = parser.parse_args(arguments)
    trained, complete = make_data(given.out)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    labels, work = given.out / "pseudo_labels", partial(run, out=given.out, complete=complete)
    jobs: list[Job] = []
    scores: list[Scores] = []
    for stage in (first_jobs, second_jobs):
        due = [job for seed in given.seeds for job in stage(seed, trained, labels)]
        due.sort(key=lambda job: LONGEST_FIRST.index(job.line))
        jobs += due
        scores += parallel_map(work, due, given.jobs, "runs")
    text = table(gather(jobs, scores))
    write_text(given.out / "study.md", text)
    logger.info("Dice x 100, mean over structures and sets ± standard deviation over seeds\n\n%s", text)


if __name__ == "__main__":
    run_main(main)
