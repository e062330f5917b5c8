import pytest

from util.ids import comparable_id, first_invalid_id, invalid_id_reason, is_valid_id, natural_key


def test_ids_are_ordered_as_people_do():
    ordered = ["1", "2", "02", "10", "010", "P2", "P7a", "P7b", "P10", "p 1", "scan_9_b", "scan_10_a"]
    assert sorted(ordered, key=natural_key)[0] == "1"
    assert sorted(["10", "2", "1"], key=natural_key) == ["1", "2", "10"]
    assert sorted(["P10", "P7b", "P2", "P7a"], key=natural_key) == ["P2", "P7a", "P7b", "P10"]
    assert sorted(["a", "1", "a1", ""], key=natural_key) == ["", "1", "a", "a1"]
    assert len({natural_key(text) for text in ordered}) == len(ordered)


@pytest.mark.parametrize(
    "text", ["1", "P7a", "image_x_1", "a.b-c d", "müller", "患者1", "[1]*?", "a..b", "console", "nul_1"]
)
def test_ids_may_hold_any_letters(text):
    assert is_valid_id(text)
    assert invalid_id_reason(text) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (" a", "white space"),
        ("a/b", "a slash"),
        ("a\\b", "a backslash"),
        ("a\0b", "a control character"),
        ("a\nb", "a control character"),
        ("\ud800", "a control character"),
        ("..", "begins with a dash or a dot"),
        (".hidden", "begins with a dash or a dot"),
        ("-rf", "begins with a dash or a dot"),
        ("a.", "ends with a dot"),
        ("/etc/passwd", "a slash"),
        ("CON", "a device on Windows"),
        ("nul.png", "a device on Windows"),
        ("ä" * 41, "82 bytes in UTF-8; expected at most 80"),
    ],
)
def test_what_cannot_be_a_file_name_is_refused(text, reason):
    assert not is_valid_id(text)
    assert reason in invalid_id_reason(text)


def test_ids_that_some_file_systems_do_not_tell_apart_compare_equal():
    assert comparable_id("P1") == comparable_id("p1")
    assert comparable_id("a\u0308") == comparable_id("\u00e4")


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        (["a", "../b"], "the id '../b' holds a slash"),
        (["a", 7], "the id 7 is no text"),
        (["a", "b", "a"], "the id 'a' is given twice"),
        (["A", "a"], "the ids 'A' and 'a' name one file"),
        (["x" * 5000], r"xxx... takes 5000 bytes"),
    ],
)
def test_the_first_unfit_id_of_many_is_named(ids, reason):
    assert reason in first_invalid_id(ids)
    assert len(first_invalid_id(ids)) < 250


def test_fit_ids_are_passed():
    assert first_invalid_id(["a", "b", "10"]) == ""
