"""Which scans are trained on, which are queried, which lend their annotation: the paper's circular folds."""

from collections.abc import Sequence
from dataclasses import dataclass

from dataloaders.catalog import DatasetSpec
from util.errors import DataError


@dataclass(frozen=True)
class Fold:
    """Scan ids of one cross-validation fold; the three groups never share a scan."""

    train: tuple[int, ...]
    query: tuple[int, ...]
    support: tuple[int, ...]


def make_fold(
    spec: DatasetSpec, scan_ids: Sequence[int], eval_fold: int, support_idx: Sequence[int] = (-1,)
) -> Fold:
    """Divides the scans at hand into training, query and support scans.

    The sorted ids form a circle; the held-out list of fold k is the k-th interval plus the `len(support_idx)` scans that
    follow it. `support_idx` picks the support scans from the held-out list (default: the last), the others are queries.
    A data set of another size than the published one is divided into intervals of equal length (to one).

    Args:
        spec: the data set.
        scan_ids: ids present on disk.
        eval_fold: 0 to `spec.n_folds` - 1.
        support_idx: positions in the held-out list, negative ones counted from its end; one per shot.

    Raises:
        DataError: an impossible fold, or too few scans to leave one for training.

    Source: SSL-ALPNet, released code (held-out lists); section 4.1 of the paper for the five folds.
    """
    ids = sorted(scan_ids)
    starts = spec.fold_starts if len(ids) == len(spec.scan_ids) else _even_starts(len(ids), spec.n_folds)
    if not 0 <= eval_fold < spec.n_folds:
        raise DataError(f"eval_fold={eval_fold}: expected 0 to {spec.n_folds - 1} for {spec.name}.")
    shots = len(support_idx)
    needed = starts[eval_fold + 1] - starts[eval_fold] + shots + 1
    if starts[eval_fold + 1] == starts[eval_fold] or len(ids) < needed:
        raise DataError(
            f"{spec.name}, fold {eval_fold}: {len(ids)} scans found ({_listed(ids)}), at least "
            f"{max(needed, spec.n_folds)} needed ({shots} support, at least 1 query and 1 training scan in each of "
            f"{spec.n_folds} folds). Prepare more scans."
        )
    held_out = [ids[i % len(ids)] for i in range(starts[eval_fold], starts[eval_fold + 1] + shots)]
    try:
        support = tuple(held_out[index] for index in support_idx)
    except IndexError:
        raise DataError(
            f"support_idx={list(support_idx)}: positions in the held-out list {held_out} of fold {eval_fold}; "
            f"expected values from {-len(held_out)} to {len(held_out) - 1}."
        ) from None
    if len(set(support)) < shots:
        raise DataError(f"support_idx={list(support_idx)} names a scan twice; expected different scans.")
    query = tuple(scan for scan in held_out if scan not in support)
    return Fold(tuple(scan for scan in ids if scan not in held_out), query, support)


def _even_starts(n_scans: int, n_folds: int) -> tuple[int, ...]:
    return tuple(round(fold * n_scans / n_folds) for fold in range(n_folds + 1))


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids)) or "none"
