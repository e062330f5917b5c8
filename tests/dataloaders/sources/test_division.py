"""Which domains, patients and scans are trained on and tested."""

import pytest

from dataloaders.samples import Origin
from dataloaders.sources.config import SourcesDataConfig
from dataloaders.sources.division import SourceScan, divide, n_selected
from util.errors import ConfigError, DataError


def scans(**numbers):
    """Scans of `numbers` patients of each domain, or of a centre such as B2; every fifth is not annotated."""
    return [
        SourceScan(f"{centre}-{n}", Origin(f"{centre}-{n}", domain=centre[0], centre=centre[1:]), {0: "ED"}, 2)
        for centre, number in numbers.items()
        for n in range(1, number + 1)
    ]


def config(**settings):
    return SourcesDataConfig(**({"dataset": "CHAOST2", "test_domains": ("A",), "labelled_fraction": 0.5} | settings))


def test_the_released_rule_selects_as_many_patients_as_recorded(golden_file):
    golden = golden_file("semi_dg/protocol.npz")
    for ratio, row in zip(golden["ratio"], golden["labelled_patients_legacy"], strict=True):
        found = [n_selected(int(n), float(ratio), "legacy") for n in golden["n_patients"]]
        assert found == row.tolist()


@pytest.mark.parametrize(("n", "fraction", "wanted"), [(50, 0.02, 1), (51, 0.02, 2), (100, 0.07, 7), (4, 0.02, 1)])
def test_the_plain_rule_rounds_up_and_selects_at_least_one(n, fraction, wanted):
    assert n_selected(n, fraction, "ceil") == wanted


def test_patients_are_selected_by_centre_in_natural_order():
    found = divide(scans(A1=3, B2=10, B3=4, C4=3), config(), "X")
    assert found.sources == ("B", "C")
    assert found.patients == {
        "B 2": ("B2-1", "B2-2", "B2-3", "B2-4", "B2-5"),
        "B 3": ("B3-1", "B3-2"),
        "C 4": ("C4-1", "C4-2"),
    }
    assert set(found.labelled) == {patient for group in found.patients.values() for patient in group}
    assert len(found.unlabelled) == 17
    assert found.test == ("A1-1", "A1-2", "A1-3")
    assert not set(found.test) & {*found.unlabelled, *found.labelled}


def test_a_random_selection_depends_on_its_seed_alone():
    cases = scans(A1=2, B2=30, C3=30)
    chosen = [divide(cases, config(selection="random", selection_seed=s), "X").patients for s in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert {len(each) for each in chosen[0].values()} == {15}


def test_the_generic_protocol_draws_from_all_sources_together():
    numbers = {"A1": 95, "B2": 74, "B3": 51, "C4": 50, "D5": 50}
    for target, wanted in {"A": 5, "B": 4, "C": 6, "D": 6}.items():
        settings = {"test_domains": (target,), "labelled_fraction": 0.02, "protocol": "generic", "selection": "legacy"}
        found = divide(scans(**numbers), config(**settings), "X")
        assert [len(each) for each in found.patients.values()] == [wanted]


def test_scans_without_label_are_trained_on_but_neither_selected_nor_tested():
    cases = [*scans(A1=2, B2=2), SourceScan("B2-0", Origin("B2-0", domain="B", centre="2"), {})]
    cases.append(SourceScan("A1-0", Origin("A1-0", domain="A", centre="1"), {}))
    found = divide(cases, config(labelled_fraction=1.0), "X")
    assert found.labelled == ("B2-1", "B2-2")
    assert set(found.unlabelled) == {"B2-0", "B2-1", "B2-2"}
    assert found.test == ("A1-1", "A1-2")


def test_development_patients_are_not_trained_on_and_leave_one_that_is():
    found = divide(scans(A1=2, B2=6, C3=1), config(labelled_fraction=0.5, development_patients=1), "X")
    assert found.development == ("B2-3",)
    assert found.labelled == ("B2-1", "B2-2", "C3-1")
    assert "B2-3" not in found.unlabelled


def test_sources_can_be_named_so_that_a_further_domain_stays_unseen():
    found = divide(scans(A1=2, B2=2, C3=2, D4=2), config(train_domains=("C", "D"), test_domains=("B",)), "X")
    assert found.sources == ("C", "D")
    assert not any(scan.startswith("A") for part in (found.labelled, found.unlabelled, found.test) for scan in part)


@pytest.mark.parametrize(
    ("settings", "cases", "message"),
    [
        ({"test_domains": ("E",)}, scans(A1=1, B2=1), "test_domains has 'E'; expected some of A, B"),
        ({"train_domains": ("F",)}, scans(A1=1, B2=1), "train_domains has 'F'"),
        ({"test_domains": ("A", "B")}, scans(A1=1, B2=1), "names every domain"),
        ({}, [*scans(A1=1, B2=1), SourceScan("x", Origin("x"), {0: ""})], "scan x has no domain"),
        (
            {},
            [*scans(A1=1, B2=1), SourceScan("C-1", Origin("C-1", domain="C"), {})],
            "source domain C has no labelled patient",
        ),
    ],
)
def test_impossible_divisions_are_explained(settings, cases, message):
    with pytest.raises(DataError, match=message):
        divide(cases, config(**settings), "X")


def test_a_target_named_among_the_sources_is_refused():
    with pytest.raises(ConfigError, match="'A' is in both"):
        config(train_domains=("A", "B"))
