"""The ladder of several partly labelled data sets without downloads: phantom eyes, of which each set labels one task.

python -m benchmarks.partial_study --out study --jobs 2      # the table in the README

Three data sets are trained on: RETA labels vessels, DDR lesions, REFUGE disc and cup. Scored are the test images of
DDR, REFUGE and of three sets that were never seen (IDRiD, DRIVE, STARE), and new eyes before the cameras of the three
training sets, on which all structures are annotated: only these show what a network says of structures that a training
set does not label. Completed runs are not repeated.
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
from data.phantom import make_image, write_phantom
from data.prepare.__main__ import main as prepare
from dataloaders.catalog import dataset
from dataloaders.io.png import write_png
from util.cli import parallel_map, run_main, whole
from util.files import write_json, write_text
from util.results.scores import FILE_NAME, csv_text, read_scores

logger = logging.getLogger(__name__)

SIZE_PX, RAW_PX = 96, 160
N_RAW = {"idrid": 30, "reta": 30, "ddr": 40, "refuge": 40, "drive": 16, "stare": 8}
N_COMPLETE, COMPLETE_SEED = 10, 1  # new eyes before each camera, with all structures annotated
TRAINED = {"RETA": ("vessel",), "DDR": ("EX", "HE", "SE", "MA"), "REFUGE": ("disc", "cup")}
STRUCTURES = tuple(name for names in TRAINED.values() for name in names)
UNSEEN = ("IDRiD", "DRIVE", "STARE")
SEEDS = (0, 1, 2)

SECOND_STAGE: dict[str, dict[str, Any]] = {
    "+ pseudo-labels": {"adversarial_weight": 0.0, "attention": False},
    "+ adversarial": {"attention": False},
    "PSSNet: + attention": {},
}
GENERATOR, EXPERTS, NAIVE, TEACHER = (
    "One head per task (stage 1)",
    "Single-task experts",
    "Missing as background",
    ("Averaged teacher"),
)
LINES = (EXPERTS, NAIVE, GENERATOR, *SECOND_STAGE, TEACHER)


class Job(NamedTuple):
    """One training with its validation."""

    line: str
    word: str
    keys: Mapping[str, Any]
    seed: int
    commands: tuple[str, ...] = ("train", "validate")


def complete_name(camera: str) -> str:
    """The set of new eyes before a camera."""
    return f"{camera}-complete"


def write_complete(camera: str, out: Path) -> Path:
    """Writes photographs of new eyes with the masks of all structures as one's own data; returns the description."""
    folder, rows = out / complete_name(camera), []
    for index in range(N_COMPLETE):
        made, name = make_image(camera.lower(), index, COMPLETE_SEED, RAW_PX), f"{camera.lower()}{index}"
        write_png(folder / "images" / f"{name}.png", made.image)
        row = {"id": name, "image": f"images/{name}.png", "split": "test" if index else "train"}
        for structure in STRUCTURES:
            write_png(folder / structure / f"{name}.png", made.masks[structure].astype(np.uint8) * 255)
            row[f"mask:{structure}"] = f"{structure}/{name}.png"
        rows.append(row)
    write_text(folder / "files.csv", csv_text(tuple(rows[0]), rows))
    tasks = [task for name in TRAINED for task in dataset(name).to_dict()["tasks"]]
    description = folder / f"{complete_name(camera)}.json5"
    write_json(description, {
        "name": complete_name(camera), "kind": "images", "channels": 3, "files": "files.csv",
        "classes": [{"name": name} for name in STRUCTURES], "tasks": tasks,
        "grid": {"size_px": SIZE_PX, "aspect": "pad", "field": "largest"},
    })  # fmt: skip
    return description


def make_data(out: Path, jobs: int) -> list[str]:
    """Makes and prepares all sets; returns the descriptions of the complete ones."""
    data = out / "data"
    for name, number in N_RAW.items():
        write_phantom(name, out / "raw" / name, number, RAW_PX, seed=0, jobs=jobs)
        prepare([name, "--raw", f"{out / 'raw' / name}", "--out", f"{data}", "--size-px", f"{SIZE_PX}",
                 "--jobs", f"{jobs}"])  # fmt: skip
    descriptions = [write_complete(camera, out / "raw") for camera in TRAINED]
    for path in descriptions:
        prepare([f"{path}", "--out", f"{data}", "--size-px", f"{SIZE_PX}", "--jobs", f"{jobs}"])
    return [str(path) for path in descriptions]


def first_jobs(seed: int, labels: Path) -> list[Job]:
    """All that needs no pseudo-labels."""
    experts = [Job(EXPERTS, "partial_generator", {"datasets": [name]}, seed) for name in TRAINED]
    commands = ("train", "export", "validate")
    return [
        Job(GENERATOR, "partial_generator", {"export_to": str(labels / f"seed{seed}")}, seed, commands),
        *experts,
        Job(NAIVE, "partial_naive", {}, seed),
        Job(TEACHER, "partial_teacher", {}, seed),
    ]


def second_jobs(seed: int, labels: Path) -> list[Job]:
    """The steps of the second stage, on the pseudo-labels of the first."""
    pseudo = {"pseudo_labels": str(labels / f"seed{seed}")}
    return [Job(line, "partial_adversarial", keys | pseudo, seed) for line, keys in SECOND_STAGE.items()]


def scored_sets(job: Job, complete: Sequence[str]) -> list[str]:
    """The sets that a run is scored on: of an expert those with its structures."""
    trained = job.keys.get("datasets", list(TRAINED))
    own = {name for each in trained for name in TRAINED[each]}
    with_test = [name for name in ("DDR", "REFUGE", *UNSEEN) if own & {each.name for each in dataset(name).classes}]
    return [*with_test, *complete]


Scores = dict[tuple[str, str], float]  # data set, structure -> mean Dice of its images


def run(job: Job, out: Path, complete: Sequence[str]) -> Scores:
    """Trains, exports and validates, or reads the scores of an earlier run."""
    keys = (
        {"datasets": list(TRAINED), "scored": scored_sets(job, complete)}
        | dict(job.keys)
        | {
            "seed": job.seed,
            "surface_scores": False,
            "path": {"data_dir": str(out / "data"), "log_dir": str(out / "exps")},
        }
    )
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
    own = [(name, structure) for name in ("DDR", "REFUGE") for structure in TRAINED[name]]
    own.append((complete_name("RETA"), "vessel"))  # RETA itself has no test images
    unseen = [("IDRiD", name) for name in (*TRAINED["DDR"], "disc")] + [(name, "vessel") for name in ("DRIVE", "STARE")]
    foreign = {
        structure: [(complete_name(camera), structure) for camera, names in TRAINED.items() if structure not in names]
        for structure in STRUCTURES
    }
    not_labelled = [pair for pairs in foreign.values() for pair in pairs]
    return {
        "labelled structures, own sets": own,
        "labelled elsewhere, own sets": not_labelled,
        "unseen sets": unseen,
        "vessel": foreign["vessel"],
        "lesions": [pair for name in TRAINED["DDR"] for pair in foreign[name]],
        "disc, cup": foreign["disc"] + foreign["cup"],
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
    """Makes the phantoms, runs all jobs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for data, runs and tables")
    parser.add_argument("--jobs", type=whole(1), default=2, help="processes (default: 2)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="one training each (default: 0 1 2)")
    given = parser.parse_args(arguments)
    complete = make_data(given.out, given.jobs)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    labels, work = given.out / "pseudo_labels", partial(run, out=given.out, complete=complete)
    jobs: list[Job] = []
    scores: list[Scores] = []
    for stage in (first_jobs, second_jobs):
        due = [job for seed in given.seeds for job in stage(seed, labels)]
        jobs += due
        scores += parallel_map(work, due, given.jobs, "runs")
    text = table(gather(jobs, scores))
    write_text(given.out / "study.md", text)
    logger.info("Dice x 100, mean over structures and sets ± standard deviation over seeds\n\n%s", text)


if __name__ == "__main__":
    run_main(main)
