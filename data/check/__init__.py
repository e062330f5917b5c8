"""Validates a prepared folder of scans before training and suggests fixes."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from data.check.facts import read_facts
from data.check.prepared import Finding, Prepared, find_fold
from data.check.rules import findings_of
from dataloaders.description import DatasetSpec
from dataloaders.scans import manifest as manifests
from dataloaders.scans.folder import SUFFIX, prepare_command, scan_files, scan_records
from dataloaders.scans.manifest import Manifest
from util.errors import DataError, UserError
from util.ids import invalid_id_reason

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
    scans: Collection[str] | None = None,
) -> list[Finding]:
    """Validates a folder: everything that would make training or scores wrong.

    Args:
        folder: prepared folder.
        spec: the data set.
        scale: pseudo-labels to check; None where none are needed.
        eval_fold: also check this fold: enough scans, classes in its support scans, no scan on two sides.
        min_size_px: rows and columns that the loader crops to; default those of the preparation.
        support_idx: support scans of the fold, as positions in its held-out list.
        jobs: files read at a time.
        scans: the only ones to read; None: all.

    Returns:
        Errors first, then warnings; empty if there are none. Files that have not changed since the last check are not
        read again.
    """
    images, labels = scan_files(folder, "image"), scan_files(folder, "label")
    if not images and not labels:
        found = "no image_<scan id>.nii.gz in it" if folder.is_dir() else "no such folder"
        remedy = f"Run `{prepare_command(spec)}`, or correct the path."
        return [Finding("error", folder, f"{found}; expected the prepared scans of {spec.name}. {remedy}")]
    findings = _odd_names(folder)
    if scans is not None:
        images, labels = ({scan: path for scan, path in files.items() if scan in scans} for files in (images, labels))
    kinds = {"image": images, "label": labels}
    if scale is not None:
        kinds[f"superpix-{scale}"] = scan_files(folder, f"superpix-{scale}")
    found = read_facts([path for paths in kinds.values() for path in paths.values()], folder, spec, jobs)
    facts = {kind: {scan: found[path.name] for scan, path in paths.items()} for kind, paths in kinds.items()}
    try:
        manifest = Manifest.load(folder, spec.name)
    except UserError as error:
        manifest = Manifest(spec.name)
        path = folder / manifests.FILE_NAME
        remedy = "" if "delete the file" in str(error) else f" Or delete it and run `{prepare_command(spec)}`."
        findings.append(Finding("error", path, str(error).removeprefix(f"{path}: ") + remedy))
    records = scan_records(images, labels, manifest, spec)
    fold = None if eval_fold is None else find_fold(folder, spec, records, eval_fold, support_idx)
    if isinstance(fold, Finding):
        findings.append(fold)
        fold = None
    prepared = Prepared(
        folder, spec, scale, min_size_px or _size_px(manifest, spec), manifest, facts, fold, scans is not None
    )
    findings += findings_of(prepared)
    return sorted(findings, key=lambda finding: finding.severity)


def _size_px(manifest: Manifest, spec: DatasetSpec) -> int:
    """Rows and columns that the folder was prepared with; the data set's where the manifest has none."""
    return manifest.parameters.get("normalise", {}).get("size_px", spec.grid.size_px)


def _odd_names(folder: Path) -> list[Finding]:
    """Images that the loader would skip silently."""
    findings = []
    for path in sorted(folder.glob("image_*")):
        scan = path.name.removeprefix("image_").removesuffix(SUFFIX)
        reason = invalid_id_reason(scan) if path.name.endswith(SUFFIX) else f"does not end in {SUFFIX}"
        if reason:
            text = f"not used: the name is not image_<scan id>{SUFFIX}, as {scan!r} {reason}. Rename or remove it."
            findings.append(Finding("warning", path, text))
    return findings


def require_valid(
    folder: Path,
    spec: DatasetSpec,
    scale: str | None = "MIDDLE",
    eval_fold: int | None = None,
    min_size_px: int | None = None,
    support_idx: Sequence[int] = (-1,),
    jobs: int = 2,
    scans: Collection[str] | None = None,
) -> None:
    """Runs `check_folder` and logs the warnings.

    Raises:
        DataError: there are errors; the message lists them all.
    """
    findings = check_folder(folder, spec, scale, eval_fold, min_size_px, support_idx, jobs, scans)
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in findings:
        if finding.severity == "warning":
            log.warning("%s", finding)
    if errors:
        lines = "\n".join(f"  {finding.file}: {finding.text}" for finding in errors)
        raise DataError(f"{folder}: {len(errors)} error(s) in the prepared data of {spec.name}:\n{lines}")
