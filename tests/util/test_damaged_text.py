"""Truncated files and flipped bits: the readers of JSON, JSON5 and CSV give content or one error."""

from contextlib import suppress
from pathlib import Path

import pytest

from data.sources.own_table import read_table as read_own_table
from dataloaders.catalog import dataset
from dataloaders.description import DatasetSpec, read_description
from dataloaders.scans.manifest import Manifest
from tests.dataloaders.io.fuzz import bit_flips, truncations
from util.csv_files import read_csv
from util.errors import UserError
from util.files import read_json, write_json
from util.ids import is_valid_id
from util.results.scores import make_scores, read_scores, write_scores

ROOT = Path(__file__).parents[2]


def damaged(content, count=60):
    yield from truncations(content)
    yield from bit_flips(content, 3, count)


def refused(read, path, contents):
    """The number of contents that are refused; every other kind of error fails the test."""
    messages = []
    for content in contents:
        path.write_bytes(content)
        try:
            read(path)
        except UserError as error:
            messages.append(str(error))
    assert all(path.name in message for message in messages)
    return len(messages)


def test_descriptions(tmp_path):
    content = (ROOT / "data/JSRT/dataset.json5").read_bytes()
    assert refused(read_description, tmp_path / "d.json5", damaged(content)) > 20
    hostile = [b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, b"-" * 9999, b"{name: 'a', kind: 'images', classes: 1e999}"]
    assert refused(read_description, tmp_path / "d.json5", hostile) == len(hostile)


def test_values_of_other_types_in_a_description():
    for key in dataset("JSRT").to_dict():
        for value in (None, [], {}, [[]], {"a": 1}, 10**400, -1, "x" * 100, True, [None], ["a", "a"]):
            with suppress(UserError):
                DatasetSpec.from_dict({"name": "a", "kind": "images", "classes": [{"name": "b"}], key: value})


def test_tables(tmp_path):
    lines = "".join(f"case {n},img/{n}.png,{'train' if n % 2 else 'test'}\n" for n in range(20))
    content = ("id,image,split\n" + lines).encode()
    path = tmp_path / "t.csv"
    assert refused(lambda file: read_csv(file, ("id", "split")), path, damaged(content)) > 20
    assert refused(lambda file: read_own_table(file, dataset("JSRT")), path, damaged(content)) > 20
    for each in damaged(content):
        path.write_bytes(each)
        try:
            rows = read_csv(path, ("id",))
        except UserError:
            continue
        assert all(is_valid_id(row["id"]) for row in rows)


def test_scores(tmp_path):
    records = [{"method": "m", "case": f"{n}", "metric": "dice", "value": n / 20} for n in range(20)]
    write_scores(tmp_path / "scores.csv", make_scores(records))
    content = (tmp_path / "scores.csv").read_bytes()
    assert refused(read_scores, tmp_path / "scores.csv", damaged(content)) > 15


@pytest.mark.parametrize("read", [read_json, lambda path: Manifest.load(path.parent, "X")])
def test_records(tmp_path, read):
    path = tmp_path / "manifest.json"
    scan = {"original": {"shape": [4, 5, 6]}, "statistics": {"mean": 0.5}}
    write_json(path, {"dataset": "X", "parameters": {}, "scans": {f"{n}": scan for n in range(5)}})
    content = path.read_bytes()
    assert refused(read, path, damaged(content)) > 15
