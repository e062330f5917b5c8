"""Records what a run was and what came of it, and writes the page of it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.evaluation.base import EvaluationResult
from models.training.trained_on import FILE_NAME as TRAINED_ON
from models.training.trained_on import TrainedOn
from util.cli import command_line
from util.files import file_sha256, read_json_object
from util.items import dispensable
from util.results.curves import draw_memorisation
from util.results.progress import FILE_NAME as PROGRESS
from util.results.report import Record, save_report
from util.results.report.record import headline_of, now, print_tables, relative
from util.runtime import device


def write_validation_page(
    out: Path,
    result: EvaluationResult,
    curves: Mapping[str, Path],
    settings: Mapping[str, Any],
    changed: Iterable[str],
    checkpoint: Path | None,
) -> Path | None:
    """Writes `report.json` and `report.html` of a validation; returns the page's path, None if it cannot be made.

    Args:
        out: folder of the run, in which its scores and pictures are.
        result: of the validation.
        curves: of the training, see `draw_training`.
        settings: the whole configuration.
        changed: keys of it that differ from their defaults.
        checkpoint: that was validated; None: none.
    """
    with dispensable("report.html"):
        Record(
            title=result.title,
            n_cases=result.n_cases,
            failed=dict(result.failed),
            missing=[*result.failed_sets, *result.failures],
            headline=headline_of(result.tables),
            tables=print_tables(result.tables),
            pictures=relative(result.pictures, out),
            curves=relative(curves, out),
            **_about(settings, changed, checkpoint),
        ).save(out)
        return save_report(out)
    return None


def write_training_page(
    folder: Path,
    title: str,
    history: Sequence[Mapping[str, float]],
    settings: Mapping[str, Any],
    changed: Iterable[str],
) -> None:
    """Writes `report.json` and `report.html` of a training, next to its `progress.png`.

    Args:
        folder: of the experiment.
        title: method, data set and step.
        history: of the evaluations during training.
        settings: see `write_validation_page`, as is `changed`.
        changed: keys.
    """
    with dispensable("report.html of the training"):
        curves = {"training": folder / PROGRESS} if (folder / PROGRESS).exists() else {}
        curves |= draw_memorisation(folder, history, f"Training of {title}")
        about = _about(settings, changed, folder / "checkpoint.pt")
        Record(title=f"Training of {title}", curves=relative(curves, folder), **about).save(folder)
        save_report(folder)


def _about(settings: Mapping[str, Any], changed: Iterable[str], checkpoint: Path | None) -> dict[str, Any]:
    facts = device.report()
    gpus, machine = [gpu["name"] for gpu in facts["gpus"]], facts["machine"]
    versions = {name: str(value) for name, value in facts["versions"].items() if value}
    versions["hardware"] = ", ".join(
        [*gpus, f"{machine['cores']} CPU cores, {machine['memory_gib']:.0f} GiB of memory"]
    )
    return {
        "command": command_line(),
        "finished": now(),
        "settings": settings,
        "changed": sorted(changed),
        "versions": versions | {"system": machine["system"]},
        "data": {} if checkpoint is None else _hashes(checkpoint),
    }


def _hashes(checkpoint: Path) -> dict[str, str]:
    """Of the weights and of what they were trained on; never the contents, which may name patients."""
    trained_on = checkpoint.with_name(TRAINED_ON)
    contents = read_json_object(trained_on) if trained_on.exists() else {}
    told = {f"training data ({len(contents)} entries)": TrainedOn(contents, checkpoint).sha256} if contents else {}
    return told | ({"checkpoint": file_sha256(checkpoint)} if checkpoint.exists() else {})
