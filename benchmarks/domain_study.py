"""Semi-supervised domain generalisation without downloads: phantom hearts of four domains, each held out in turn.

python -m benchmarks.domain_study --out study --jobs 2     # all methods: see docs/domain_generalisation.md
python -m benchmarks.domain_study --out study --jobs 2 --ablation    # parts of mixed_teacher, on development domains

One patient per centre is labelled; histograms are matched in training and test, as published for M&Ms. For each
target, the ablation trains on two of its sources and tests on the third; the target stays closed, but every domain is a
development domain once. Completed runs are not repeated.
"""

import argparse
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.runs import results, run_once
from data.phantom import write_phantom
from data.prepare.__main__ import main as prepare
from util.cli import parallel_map, run_main, whole
from util.files import write_text

logger = logging.getLogger(__name__)

DOMAINS = ("A", "B", "C", "D")
N_PATIENTS, SIZE_PX = 40, 72
SEEDS = (0, 1, 2)

# Name in the table -> words.
METHODS = {
    "Labelled only": ("labelled_only", "labels2"),
    "Mean teacher": ("mean_teacher", "labels2"),
    "CPS": ("cps", "labels2"),
    "CACPS": ("cacps", "labels2"),
    "Mixed teacher": ("mixed_teacher", "labels2"),
    "All labelled": ("labelled_only", "labels100"),
}

# Part that is switched off -> keys.
ABLATION: dict[str, dict[str, Any]] = {
    "nothing": {},
    "averaged teacher": {"teacher": "student"},
    "Fourier mix": {"fourier": {"mode": "none"}},
    "appearance": {"appearance": {"probability": 0.0}},
    "unlabelled boxes (labelled ones instead)": {"cutmix_from": "labelled"},
    "MixStyle": {"mixstyle": {"passes": "none"}},
    "confidence by KL (threshold instead)": {"confidence": "threshold"},
    "strong views of labelled slices": {"supervised_augmented": False},
    "weight 1 (3 instead)": {"unlabelled_weight": 3.0},
}
# Reported domain, which stays closed -> sources and tested domain of its development runs.
DEVELOPMENT = {"A": ("CD", "B"), "B": ("AD", "C"), "C": ("AB", "D"), "D": ("BC", "A")}


class Job(NamedTuple):
    """One training with its validation."""

    line: str
    words: tuple[str, ...]
    keys: Mapping[str, Any]
    column: str
    seed: int


def study_jobs() -> list[Job]:
    """Every method, held-out domain and seed."""
    return [
        Job(name, words, {"test_domains": [domain]}, domain, seed)
        for seed in SEEDS
        for domain in DOMAINS
        for name, words in METHODS.items()
    ]


def ablation_jobs() -> list[Job]:
    """Every variant on the development domain of each target, for one seed."""
    return [
        Job(
            name,
            ("mixed_teacher", "labels2"),
            {"train_domains": list(sources), "test_domains": [tested]} | keys,
            f"{'+'.join(sources)} to {tested}",
            seed,
        )
        for seed in SEEDS[:1]
        for sources, tested in DEVELOPMENT.values()
        for name, keys in ABLATION.items()
    ]


def run(job: Job, out: Path) -> float:
    """Trains and validates, or reads the result of an earlier run; returns the mean 3-D Dice x 100."""
    keys = dict(job.keys) | {
        "seed": job.seed,
        "surface_scores": False,
        "pictures": False,
        "path": {"data_dir": str(out / "data"), "log_dir": str(out / "exps")},
    }
    return 100 * float(results(run_once(("mms", "semidg_small", *job.words), keys))["validate"])


def table(jobs: Sequence[Job], found: Sequence[float]) -> str:
    """Lines x columns, mean over columns ± standard deviation over seeds of that mean, in Markdown."""
    lines = list(dict.fromkeys(job.line for job in jobs))
    columns = list(dict.fromkeys(job.column for job in jobs))
    seeds = sorted({job.seed for job in jobs})
    value = {(job.line, job.column, job.seed): one for job, one in zip(jobs, found, strict=True)}
    text = [f"| | {' | '.join(columns)} | mean |", f"|---|{'---:|' * (len(columns) + 1)}"]
    for line in lines:
        scores = np.array([[value[line, column, seed] for column in columns] for seed in seeds])
        means = scores.mean(1)
        spread = f" ± {means.std(ddof=1):.1f}" if len(seeds) > 1 else ""
        cells = [*(f"{one:.1f}" for one in scores.mean(0)), f"{means.mean():.1f}{spread}"]
        text.append(f"| {line} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the phantom, runs all jobs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for data, runs and tables")
    parser.add_argument("--jobs", type=whole(1), default=2, help="processes (default: 2)")
    parser.add_argument("--ablation", action="store_true", help="parts of mixed_teacher on development domains")
    given = parser.parse_args(arguments)
    write_phantom("mms", given.out / "raw", N_PATIENTS, SIZE_PX, seed=0, jobs=given.jobs)
    prepare(["mms", "--raw", f"{given.out / 'raw'}", "--out", f"{given.out / 'data'}", "--size-px", f"{SIZE_PX}",
             "--jobs", f"{given.jobs}"])  # fmt: skip
    jobs = ablation_jobs() if given.ablation else study_jobs()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = list(parallel_map(partial(run, out=given.out), jobs, given.jobs, "runs"))
    text = table(jobs, found)
    name = "ablation.md" if given.ablation else "study.md"
    write_text(given.out / name, text)
    columns = "sources to development domain" if given.ablation else "held-out domain"
    logger.info("Dice x 100 of the structures in 3-D; columns: %s\n\n%s\n%s", columns, text, given.out / name)


if __name__ == "__main__":
    run_main(main)
