from dataclasses import replace

import pytest

from dataloaders.catalog import dataset
from dataloaders.description import DatasetSpec, FoldRule
from dataloaders.fewshot.folds import make_fold
from dataloaders.samples import Origin
from dataloaders.scans.folder import ScanRecord
from util.errors import DataError

CHAOST2 = dataset("CHAOST2")
SABS = dataset("SABS")
OWN = DatasetSpec("mine", "scans", folds=FoldRule(number=3))

# fold -> (queries, support). Source: the reference's held-out lists.
CHAOST2_FOLDS = [
    ("1 2 3 5", "8"),
    ("8 10 13 15", "19"),
    ("19 20 21 22", "31"),
    ("31 32 33 34", "36"),
    ("36 37 38 39", "1"),
]


def ids(text):
    return tuple(text.split())


@pytest.mark.parametrize("fold", range(5))
def test_folds_are_the_published_ones(fold):
    chaos = make_fold(CHAOST2, CHAOST2.cases, fold)
    assert (chaos.query, chaos.support) == (ids(CHAOST2_FOLDS[fold][0]), (CHAOST2_FOLDS[fold][1],))
    assert len(chaos.train) == 15
    sabs = make_fold(SABS, [str(number) for number in range(30)], fold)
    assert sabs.query == tuple(str(number) for number in range(6 * fold, 6 * fold + 6))
    assert sabs.support == (str((6 * fold + 6) % 30),)
    assert len(sabs.train) == 23


@pytest.mark.parametrize(
    "scans", [CHAOST2.cases, ids("1 2 3 5 8 10 13 15"), tuple(str(number) for number in range(100, 117))]
)
@pytest.mark.parametrize("support_idx", [(-1,), (0, -1)])
def test_groups_never_share_a_scan_and_cover_all(scans, support_idx):
    fold = make_fold(CHAOST2, scans, 0, support_idx)
    groups = [set(fold.train), set(fold.query), set(fold.support)]
    assert sum(map(len, groups)) == len(scans)
    assert set.union(*groups) == set(scans)


def test_an_incomplete_data_set_keeps_the_published_intervals():
    fold = make_fold(CHAOST2, ids("1 2 3 5 8 10 13 15"), 1)
    assert (fold.query, fold.support, fold.train) == (ids("8 10 13 15"), ("1",), ids("2 3 5"))


def test_own_scans_are_divided_evenly_in_natural_order():
    folds = [make_fold(OWN, ids("p10 p9 p2 p1 p7a p7b"), fold) for fold in range(3)]
    assert [fold.query for fold in folds] == [ids("p1 p2"), ids("p7a p7b"), ids("p9 p10")]
    assert [fold.support for fold in folds] == [("p7a",), ("p9",), ("p1",)]
    assert folds[0].train == ids("p7b p9 p10")


def test_scans_without_a_label_are_trained_on_in_every_fold():
    records = {"b": ScanRecord(is_labelled=False), "e": ScanRecord(is_labelled=False)}
    for fold in range(2):
        found = make_fold(replace(OWN, folds=FoldRule(number=2)), ids("a b c e"), fold, records=records)
        assert found.train == ("b", "e")
        assert {*found.query, *found.support} == {"a", "c"}


def test_no_patient_is_divided():
    patients = {"a1": "A", "a2": "A", "b1": "B", "b2": "B", "b3": "B", "c1": "C", "d1": "D"}
    records = {scan: ScanRecord(scan not in ("a2", "b3"), Origin(patient)) for scan, patient in patients.items()}
    first = make_fold(replace(OWN, folds=FoldRule(number=4)), list(patients), 0, records=records)
    assert (first.query, first.support, first.train) == (("a1",), ("b1",), ("c1", "d1"))  # a2, b2, b3 are left out
    last = make_fold(replace(OWN, folds=FoldRule(number=2)), list(patients), 1, records=records)
    assert (last.query, last.support, last.train) == (("c1", "d1"), ("a1",), ("b1", "b2", "b3"))


def test_folds_of_the_table_come_first_then_those_of_the_description():
    spec = replace(OWN, folds=FoldRule(number=2, lists=(("a", "c"), ("b", "d"))))
    fold = make_fold(spec, ids("a b c d e"), 1)
    assert (fold.query, fold.support, fold.train) == (("b", "d"), ("a",), ("c", "e"))
    records = {scan: ScanRecord(fold=number) for scan, number in zip("abcd", (1, 1, 0, 0), strict=True)}
    fold = make_fold(spec, ids("a b c d e"), 1, records=records)
    assert (fold.query, fold.support, fold.train) == (("a", "b"), ("c",), ("d", "e"))


def test_a_set_without_any_label_is_trained_on_as_a_whole():
    records = {str(scan): ScanRecord(is_labelled=False) for scan in ids("2 10")}
    fold = make_fold(OWN, ids("10 2"), 0, records=records)
    assert (fold.train, fold.query, fold.support) == (ids("2 10"), (), ())


def test_a_single_labelled_scan_is_the_support():
    records = {"a": ScanRecord(), "b": ScanRecord(is_labelled=False), "c": ScanRecord(False, Origin("a"))}
    fold = make_fold(OWN, ids("c b a"), 0, records=records)
    assert (fold.train, fold.query, fold.support) == (("b",), (), ("a",))


@pytest.mark.parametrize(
    ("scans", "fold", "support_idx", "message"),
    [
        (ids("1 2 3"), 0, (-1,), r"1, 2, 3 found.*Prepare more scans.*smaller folds.number"),
        (CHAOST2.cases, 5, (-1,), "expected 0 to 4"),
        (CHAOST2.cases, 0, (7,), "expected -5 to 4"),
        (CHAOST2.cases, 0, (0, 0), "names a scan twice"),
        (ids("8 10 13 15 19"), 0, (-1,), "of which 0 in this fold's interval"),
    ],
)
def test_impossible_folds_are_explained(scans, fold, support_idx, message):
    with pytest.raises(DataError, match=message):
        make_fold(CHAOST2, scans, fold, support_idx)


@pytest.mark.parametrize(
    ("folds", "records", "message"),
    [
        (
            FoldRule(number=2, lists=(("a", "x"), ("b",))),
            {},
            r"folds\.lists: no labelled scan x; expected some",
        ),
        (FoldRule(number=2, lists=(("a", "b"), ("b",))), {}, "b in more than one fold"),
        (
            FoldRule(number=2),
            {"a": ScanRecord(origin=Origin("P"), fold=0), "b": ScanRecord(origin=Origin("P"), fold=1)},
            "P in more than one fold.*column fold",
        ),
        (
            FoldRule(number=1),
            {scan: ScanRecord(origin=Origin("P")) for scan in "abc"},
            "0 of other patients outside it",
        ),
        (
            FoldRule(number=1),
            {scan: ScanRecord(scan == "a", Origin("P")) for scan in "abc"},
            "labelled scans a found.*smaller folds.number",
        ),
    ],
)
def test_impossible_own_folds_are_explained(folds, records, message):
    with pytest.raises(DataError, match=message):
        make_fold(replace(OWN, folds=folds), ids("a b c"), 0, records=records)
