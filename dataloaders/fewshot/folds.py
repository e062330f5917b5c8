"""Which scans are trained on, which are queried, which lend their annotation: the paper's circular folds."""

from collections.abc import Sequence
from dataclasses import dataclass

from dataloaders.description import DatasetSpec
from util.errors import DataError


@dataclass(frozen=True)
class Fold:
    """Scan ids of one cross-validation fold; the three groups never share a scan."""

    train: tuple[int, ...]
    query: tuple[int, ...]
    support: tuple[int, ...]


def make_fold(spec: DatasetSpec, scan_ids: Sequence[int], eval_fold: int, support_idx: Sequence[int] = (-1,)) -> Fold:
    """Divides the scans at hand into training, query and support scans.

    The data set's sorted ids form a circle, cut into intervals. The held-out list of fold k is what is at hand of the
    k-th interval, plus the `len(support_idx)` scans at hand that follow it. `support_idx` picks the support scans from
    the held-out list (default: the last), the others are queries. Scans with ids of their own, not the published
    ones, are cut into intervals of equal length (to one).

    Args:
        spec: the data set.
        scan_ids: ids present on disk.
        eval_fold: 0 to `spec.n_folds` - 1.
        support_idx: positions in the held-out list, negative ones counted from its end; one per shot.

    Raises:
        DataError: an impossible fold, or too few scans for one query, the support and one training scan.

    Source: SSL-ALPNet, section 4.1 (five folds) and the released code (held-out lists).
    """
    if not 0 <= eval_fold < spec.n_folds:
        raise DataError(f"eval_fold={eval_fold}: expected 0 to {spec.n_folds - 1} for {spec.name}.")
    present = sorted(scan_ids)
    is_published = set(present) <= set(spec.scan_ids)
    circle = list(spec.scan_ids) if is_published else present
    starts = spec.folds.starts if is_published else _even_starts(len(present), spec.n_folds)
    begin, end = starts[eval_fold], starts[eval_fold + 1]
    in_interval = [scan for scan in circle[begin:end] if scan in present]
    after = [scan for scan in circle[end:] + circle[:begin] if scan in present]
    if not in_interval or len(after) <= len(support_idx):
        raise DataError(
            f"{spec.name}, fold {eval_fold}: scans {_listed(present)} found, of which {len(in_interval)} in this "
            f"fold's interval ({_listed(circle[begin:end])}) and {len(after)} outside it; expected at least 1 query "
            f"inside, {len(support_idx)} support and 1 training scan outside. Prepare more scans or take another fold."
        )
    held_out = in_interval + after[: len(support_idx)]
    support = tuple(_pick(held_out, index, eval_fold) for index in support_idx)
    if len(set(support)) < len(support):
        raise DataError(f"support_idx={list(support_idx)} names a scan twice; expected different scans.")
    query = tuple(scan for scan in held_out if scan not in support)
    return Fold(tuple(scan for scan in present if scan not in held_out), query, support)


def _pick(held_out: Sequence[int], index: int, eval_fold: int) -> int:
    if not -len(held_out) <= index < len(held_out):
        raise DataError(
            f"support_idx: {index} is no position in the held-out list {_listed(held_out)} of fold {eval_fold}; "
            f"expected {-len(held_out)} to {len(held_out) - 1}."
        )
    return held_out[index]


def _even_starts(n_scans: int, n_folds: int) -> tuple[int, ...]:
    return tuple(round(fold * n_scans / n_folds) for fold in range(n_folds + 1))


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids)) or "none"
