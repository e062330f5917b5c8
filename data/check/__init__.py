"""Looks a prepared folder over before anything is trained on it, and says what to mend."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from data.check.facts import facts_of
from data.check.rules import RULES, Finding, Prepared, fold_of
from data.prepare.class_index import numbered_files
from dataloaders.description import DatasetSpec
from dataloaders.scans import manifest as manifests
from dataloaders.scans.manifest import Manifest
from util.errors import DataError, UserError

__all__ = ["Finding", "check_folder", "require_valid"]

log = logging.getLogger(__name__)


def check_folder(
    folder: Path,
    spec: DatasetSpec,
    scale: str | None = "MIDDLE",
    eval_fold: int | None = None,
    min_size_px: int | None = None,
    support_idx: Sequence[int] = (-1,),
    jobs: int = 2,
) -> list[Finding]:
    """Looks for everything that would spoil a training or a score.

    Args:
        folder: prepared folder.
        spec: the data set.
        scale: pseudo-labels to look at; None where none are needed.
        eval_fold: also look at this fold: enough scans, organs in its support scans, no scan on two sides.
        min_size_px: rows and columns that the loader crops to; default those of the preparation.
        support_idx: support scans of the fold, as positions in its held-out list.
        jobs: files read at a time.

    Returns:
        Errors first, then warnings; empty where all is well. Files that have not changed since the last check are
        not read again.
    """
    images, labels = numbered_files(folder, "image"), numbered_files(folder, "label")
    if not images and not labels:
        found = "holds no image_<scan id>.nii.gz" if folder.is_dir() else "no such folder"
        remedy = f"Run `python -m data.prepare {spec.name}`, or correct the path."
        return [Finding("error", folder, f"{found}; expected the prepared scans of {spec.name}. {remedy}")]
    findings = _odd_names(folder)
    kinds = {"image": images, "label": labels}
    if scale is not None:
        kinds[f"superpix-{scale}"] = numbered_files(folder, f"superpix-{scale}")
    found = facts_of((path for paths in kinds.values() for path in paths.values()), folder, spec, jobs)
    facts = {kind: {scan: found[path.name] for scan, path in paths.items()} for kind, paths in kinds.items()}
    try:
        manifest = Manifest.load(folder, spec.name)
    except UserError as error:
        manifest = Manifest(spec.name)
        path = folder / manifests.FILE_NAME
        remedy = "" if isinstance(error, DataError) else f" Or delete it and run `python -m data.prepare {spec.name}`."
        findings.append(Finding("error", path, str(error).removeprefix(f"{path}: ") + remedy))
    fold = None if eval_fold is None else fold_of(folder, spec, list(images), eval_fold, support_idx)
    if isinstance(fold, Finding):
        findings.append(fold)
        fold = None
    prepared = Prepared(folder, spec, scale, min_size_px or _size_px(manifest, spec), manifest, facts, fold)
    findings += [finding for rule in RULES for finding in rule(prepared)]
    return sorted(findings, key=lambda finding: finding.severity)


def _size_px(manifest: Manifest, spec: DatasetSpec) -> int:
    """Rows and columns that the folder was prepared with; the data set's where nobody noted them."""
    return manifest.parameters.get("normalise", {}).get("size_px", spec.grid.size_px)


def _odd_names(folder: Path) -> list[Finding]:
    """Images that the loader would pass over in silence."""
    odd = [
        path for path in sorted(folder.glob("image_*")) if not re.fullmatch(r"image_(0|[1-9]\d*)\.nii\.gz", path.name)
    ]
    text = (
        "not used: the name is not image_<scan id>.nii.gz with a whole number. Rename the scan's files, or remove them."
    )
    return [Finding("warning", path, text) for path in odd]


def require_valid(
    folder: Path,
    spec: DatasetSpec,
    scale: str | None = "MIDDLE",
    eval_fold: int | None = None,
    min_size_px: int | None = None,
    support_idx: Sequence[int] = (-1,),
    jobs: int = 2,
) -> None:
    """Does `check_folder`; logs the warnings.

    Raises:
        DataError: there are errors; the message lists them all.
    """
    findings = check_folder(folder, spec, scale, eval_fold, min_size_px, support_idx, jobs)
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in findings:
        if finding.severity == "warning":
            log.warning("%s", finding)
    if errors:
        lines = "\n".join(f"  {finding.file}: {finding.text}" for finding in errors)
        raise DataError(f"{folder}: {len(errors)} error(s) in the prepared data of {spec.name}:\n{lines}")
