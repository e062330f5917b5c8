"""The table of brightness profiles, on small phantoms."""

import logging

import pytest

from benchmarks import brightness
from util.errors import ConfigError


def test_every_change_has_a_row_and_inverted_scans_lie_beyond_the_limit(caplog, prepared_folder):
    with caplog.at_level(logging.INFO):
        brightness.main(["--data", str(prepared_folder), "--scan", "1", "2"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in caplog.messages[-1].splitlines()[3:]]
    assert [row[0] for row in rows] == list(brightness.CHANGES)
    pairs = {row[0]: int(row[1]) for row in rows}
    beyond = {row[0]: int(row[5]) for row in rows}
    assert set(pairs.values()) == {2}
    assert (beyond["as they are"], beyond["inverted"]) == (0, 2)


def test_one_scan_is_no_pair(prepared_folder):
    with pytest.raises(ConfigError, match="--scan: 1 given; expected at least two"):
        brightness.main(["--data", str(prepared_folder), "--scan", "1"])
