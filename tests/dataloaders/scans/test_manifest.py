"""A received manifest of scans: ids that are paths and entries of another kind are refused."""

import json

import pytest

from dataloaders.scans.manifest import FILE_NAME, Manifest
from util.errors import DataError
from util.records import Record


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"scans": {"../1": {}}}, r"the id '\.\./1' holds a slash"),
        ({"scans": {"/tmp/1": {}}}, "the id '/tmp/1' holds a slash"),
        ({"scans": []}, "scans: holds something else than an object of objects"),
        ({"scans": {"1": 7}}, "scans: holds something else"),
        ({"parameters": {"normalise": 1}}, "parameters: holds something else"),
        ({"records": {"..": {}}}, r"the id '\.\.' begins with a dash or a dot"),
        ({"records": []}, "records: holds something else"),
        ({"failed": {"1": 7}}, "failed: holds something else than an object of texts"),
        ({"failed": {"a/b": "reason"}}, "the id 'a/b' holds a slash"),
    ],
)
def test_a_hostile_manifest_is_refused(tmp_path, content, found):
    (tmp_path / FILE_NAME).write_text(json.dumps({"dataset": "X", **content}))
    with pytest.raises(DataError, match=rf"manifest\.json: {found}.*prepare` again"):
        Manifest.load(tmp_path, "X")


def test_a_sound_manifest_comes_back(tmp_path):
    manifest = Manifest("X", {"normalise": {"size_px": 64}}, {"1": {}}, {"scan_1": Record({}, {})}, {"2": "damaged"})
    manifest.save(tmp_path)
    assert Manifest.load(tmp_path, "X") == manifest
