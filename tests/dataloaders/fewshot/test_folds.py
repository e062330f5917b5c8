import pytest

from dataloaders.catalog import dataset
from dataloaders.fewshot.folds import make_fold
from util.errors import DataError

CHAOST2 = dataset("CHAOST2")
SABS = dataset("SABS")

# fold -> (queries, support). Source: the reference's held-out lists.
CHAOST2_FOLDS = [
    ((1, 2, 3, 5), 8),
    ((8, 10, 13, 15), 19),
    ((19, 20, 21, 22), 31),
    ((31, 32, 33, 34), 36),
    ((36, 37, 38, 39), 1),
]


@pytest.mark.parametrize("fold", range(5))
def test_folds_are_the_published_ones(fold):
    chaos = make_fold(CHAOST2, CHAOST2.scan_ids, fold)
    assert (chaos.query, chaos.support) == (CHAOST2_FOLDS[fold][0], (CHAOST2_FOLDS[fold][1],))
    assert len(chaos.train) == 15
    sabs = make_fold(SABS, range(30), fold)
    assert sabs.query == tuple(range(6 * fold, 6 * fold + 6))
    assert sabs.support == ((6 * fold + 6) % 30,)
    assert len(sabs.train) == 23


@pytest.mark.parametrize("scans", [CHAOST2.scan_ids, (1, 2, 3, 5, 8, 10, 13, 15), tuple(range(100, 117))])
@pytest.mark.parametrize("support_idx", [(-1,), (0, -1)])
def test_groups_never_share_a_scan_and_cover_all(scans, support_idx):
    fold = make_fold(CHAOST2, scans, 0, support_idx)
    groups = [set(fold.train), set(fold.query), set(fold.support)]
    assert sum(map(len, groups)) == len(scans)
    assert set.union(*groups) == set(scans)


def test_an_incomplete_data_set_keeps_the_published_intervals():
    fold = make_fold(CHAOST2, (1, 2, 3, 5, 8, 10, 13, 15), 1)
    assert (fold.query, fold.support, fold.train) == ((8, 10, 13, 15), (1,), (2, 3, 5))


@pytest.mark.parametrize(
    ("scans", "fold", "support_idx", "message"),
    [
        ((1, 2, 3), 0, (-1,), r"1, 2, 3 found.*Prepare more scans"),
        (CHAOST2.scan_ids, 5, (-1,), "expected 0 to 4"),
        (CHAOST2.scan_ids, 0, (7,), "expected -5 to 4"),
        (CHAOST2.scan_ids, 0, (0, 0), "names a scan twice"),
        ((8, 10, 13, 15, 19), 0, (-1,), "of which 0 in this fold's interval"),
    ],
)
def test_impossible_folds_are_explained(scans, fold, support_idx, message):
    with pytest.raises(DataError, match=message):
        make_fold(CHAOST2, scans, fold, support_idx)
