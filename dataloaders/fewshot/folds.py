"""Folds of cross-validation: which scans are trained on, which are segmented, and which provide the support."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dataloaders.description import DatasetSpec
from dataloaders.scans.folder import ScanRecord
from util.errors import DataError
from util.ids import natural_key
from util.inventory import first_names

FEW_SCANS = (
    "Prepare more scans or take another fold. With few labelled scans, set a smaller folds.number in the description."
)


@dataclass(frozen=True)
class Fold:
    """Scan ids of one cross-validation fold; the three groups never share a scan or, with training, a patient."""

    train: tuple[str, ...]
    query: tuple[str, ...]  # none where no scan is labelled: nothing can be scored
    support: tuple[str, ...]


def make_fold(
    spec: DatasetSpec,
    scan_ids: Sequence[str],
    eval_fold: int,
    support_idx: Sequence[int] = (-1,),
    records: Mapping[str, ScanRecord] | None = None,
) -> Fold:
    """Divides the available scans into training, query and support scans.

    The labelled scans form a circle that is cut into one interval per fold. The held-out list of fold k holds the scans
    of the k-th interval and the `len(support_idx)` scans that follow it. `support_idx` selects the support scans from
    the held-out list (default: the last one), the others are queries. All other scans, and those without a label, are
    trained on. Further scans of the patients in the held-out list are left out. A single labelled scan is the support;
    then nothing is scored.

    The intervals are, in this order of preference: the folds of the table of files; `folds.lists` of the description;
    `folds.starts` where all labelled scans are published ones; else parts of equal length (to one patient) of the
    labelled scans in natural order of their ids, in which no patient is divided.

    Args:
        spec: the data set.
        scan_ids: ids present on disk.
        eval_fold: 0 to `spec.n_folds` - 1.
        support_idx: positions in the held-out list, negative ones counted from its end; one per shot.
        records: what is known of the scans; default: all are labelled, each of a patient of its own.

    Raises:
        DataError: an impossible fold, a patient in two folds, or too few scans for one query, the support and one
            training scan.

    Source: SSL-ALPNet, section 4.1 (five folds) and the released code (held-out lists).
    """
    if not 0 <= eval_fold < spec.n_folds:
        raise DataError(f"eval_fold={eval_fold}: expected 0 to {spec.n_folds - 1} for {spec.name}.")
    given = records or {}
    known = {scan: given.get(scan, ScanRecord()) for scan in sorted(scan_ids, key=natural_key)}
    labelled = {scan: record for scan, record in known.items() if record.is_labelled}
    if not labelled:
        return Fold(tuple(known), (), ())
    patient = {scan: record.origin.patient or scan for scan, record in known.items()}
    if len(labelled) == 1 and len(support_idx) == 1:
        others = tuple(scan for scan in known if patient[scan] not in {patient[each] for each in labelled})
        if others:
            return Fold(others, (), tuple(labelled))
    intervals = _intervals(spec, labelled, patient)
    inside = [scan for scan in intervals[eval_fold] if scan in labelled]
    after = _scans_after(eval_fold, intervals, labelled)
    after = [scan for scan in after if patient[scan] not in {patient[each] for each in inside}]
    held_out = inside + after[: len(support_idx)]
    train = tuple(scan for scan in known if patient[scan] not in {patient[each] for each in held_out})
    if not inside or len(after) < len(support_idx) or not train:
        raise DataError(
            f"{spec.name}, fold {eval_fold}: labelled scans {_listed(labelled)} found, of which {len(inside)} in this "
            f"fold's interval ({_listed(intervals[eval_fold])}) and {len(after)} of other patients outside it; "
            f"{len(train)} scans left to train on. Expected at least 1 query inside, {len(support_idx)} support "
            f"outside and 1 training scan. {FEW_SCANS}"
        )
    support = _pick(held_out, support_idx, eval_fold)
    query = tuple(scan for scan in held_out if patient[scan] not in {patient[each] for each in support})
    if not query:
        raise DataError(
            f"{spec.name}, fold {eval_fold}: all held-out scans {_listed(held_out)} are of the support's patient. "
            "Choose another support_idx or another fold."
        )
    return Fold(train, query, support)


def _intervals(
    spec: DatasetSpec, labelled: Mapping[str, ScanRecord], patient: Mapping[str, str]
) -> list[Sequence[str]]:
    """The ids of each fold's interval; published ones may be absent from `labelled`."""
    if any(record.fold is not None for record in labelled.values()):
        return _checked(
            spec, [[scan for scan in labelled if labelled[scan].fold == fold] for fold in range(spec.n_folds)], patient
        )
    if spec.folds.lists:
        unknown = [scan for scans in spec.folds.lists for scan in scans if scan not in labelled]
        if unknown:
            raise DataError(
                f"{spec.name}, folds.lists: no labelled scan {_listed(unknown)}; expected some of {_listed(labelled)}. "
                "Correct the description, or prepare these scans."
            )
        return _checked(spec, list(spec.folds.lists), patient)
    if spec.folds.starts and set(labelled) <= set(spec.cases):
        return [spec.cases[begin:end] for begin, end in pairwise(spec.folds.starts)]
    scans_of_patient: dict[str, list[str]] = {}
    for scan in labelled:
        scans_of_patient.setdefault(patient[scan], []).append(scan)
    groups = list(scans_of_patient.values())
    starts = [round(fold * len(groups) / spec.n_folds) for fold in range(spec.n_folds + 1)]
    return [[scan for group in groups[begin:end] for scan in group] for begin, end in pairwise(starts)]


def _checked(spec: DatasetSpec, intervals: list[Sequence[str]], patient: Mapping[str, str]) -> list[Sequence[str]]:
    scans = Counter(scan for interval in intervals for scan in interval)
    patients = Counter(name for interval in intervals for name in {patient[scan] for scan in interval})
    repeated = [name for name, count in (scans | patients).items() if count > 1]
    if repeated:
        raise DataError(
            f"{spec.name}: {_listed(repeated)} in more than one fold; expected each scan once, and all scans of a "
            "patient in the same fold. Correct the column fold of the table, or folds.lists of the description."
        )
    return intervals


def _scans_after(eval_fold: int, intervals: Sequence[Sequence[str]], labelled: Mapping[str, ScanRecord]) -> list[str]:
    """The labelled scans outside an interval: those that follow it on the circle, then those in no interval."""
    following = [*intervals[eval_fold + 1 :], *intervals[:eval_fold]]
    placed = {scan for interval in intervals for scan in interval}
    return [scan for interval in following for scan in interval if scan in labelled] + [
        scan for scan in labelled if scan not in placed
    ]


def _pick(held_out: Sequence[str], support_idx: Sequence[int], eval_fold: int) -> tuple[str, ...]:
    for index in support_idx:
        if not -len(held_out) <= index < len(held_out):
            raise DataError(
                f"support_idx: {index} is no position in the held-out list {_listed(held_out)} of fold {eval_fold}; "
                f"expected {-len(held_out)} to {len(held_out) - 1}."
            )
    support = tuple(held_out[index] for index in support_idx)
    if len(set(support)) < len(support):
        raise DataError(f"support_idx={list(support_idx)} names a scan twice; expected different scans.")
    return support


def _listed(ids: Sequence[str] | Mapping[str, ScanRecord]) -> str:
    return first_names(list(ids)) or "none"
