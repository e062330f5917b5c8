import csv
import errno
import gzip
import json
import logging
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from nibabel.nifti1 import Nifti1Image, load

from dataloaders.catalog import dataset
from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import parameters_of
from models.predict import main
from models.prediction import scans
from models.prediction.batch import RESULT, Inventory
from models.prediction.dense import DensePredictor
from models.prediction.scan_search import find_scans
from models.prediction.scans import name_scans, volumes
from models.prediction.segmenter import ScanSegmentation
from models.training.average import AverageConfig
from models.training.optim import OptimConfig
from models.training.state import build_state
from util.errors import CheckpointError, ConfigError, DataError, UserError
from util.runtime import checkpoint

CHAOST2 = dataset("CHAOST2")

SHAPE = (12, 32, 40)  # (D, H, W)
AFFINE = np.array([[-5, 0, 0, 97], [0, -4.8, -2, 83], [0, -1.5, 6, -30], [0, 0, 0, 1.0]])  # oblique, flipped, sheared


def scan(seed=0):
    """A body with two structures, values 2 and 5, and its label map."""
    generator = np.random.default_rng(seed)
    label = np.zeros(SHAPE, np.uint8)
    label[2:10, 6:16, 5:15], label[3:9, 14:26, 22:34] = 2, 5
    return (100 + 60 * label + generator.normal(0, 10, SHAPE)).astype(np.int16), label


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, write_dicom):
    """A checkpoint, an annotated scan, and a folder of scans of which one is damaged."""
    folder = tmp_path_factory.mktemp("inputs")
    settings = {"method": "alpnet", "modelname": "resnet18", "encoder_weights": "none", "dataset": "CHAOST2"}
    preparation = parameters_of(CHAOST2, 64).to_json()
    state = build_state(settings, 0, OptimConfig(), AverageConfig(), Normalisation(), torch.device("cpu"), preparation)
    checkpoint.save(folder / "snapshot.pth", state.snapshot())
    image, label = scan()
    write_nifti(folder / "A.nii.gz", Volume(image, AFFINE))
    write_nifti(folder / "L.nii.gz", Volume(label, AFFINE))
    write_nifti(folder / "scans" / "first.nii.gz", Volume(scan(1)[0], AFFINE))
    (folder / "scans" / "broken.nii.gz").write_bytes(gzip.compress(b"no scan"))
    (folder / "scans" / "four.nii").write_bytes(Nifti1Image(np.ones((4, 4, 4, 2), np.int16), np.eye(4)).to_bytes())
    write_nifti(folder / "scans" / "old_segmentation.nii.gz", Volume(label, AFFINE))
    write_dicom(
        folder / "patient 3" / "series", scan(3)[0].astype(np.uint16), pixel_mm=(5.0, 4.0), FrameOfReferenceUID="1.2"
    )
    return folder


def run(inputs, out, *further, scans=("scans", "patient 3")):
    files = {"checkpoint": "snapshot.pth", "support-image": "A.nii.gz", "support-label": "L.nii.gz"}
    arguments = [f"--{name}={inputs / file}" for name, file in files.items()]
    places = [str(inputs / place) for place in scans]
    return main([*arguments, f"--out={out}", "--device=cpu", *further, "--scans", *places])


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """The results of one run and what it logged."""
    out = tmp_path_factory.mktemp("out")
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("util.items")
    logger.addHandler(handler)
    code = run(inputs, out, "--overlays", "--dicom-seg", "--classes", "liver=2", "5")
    logger.removeHandler(handler)
    return code, out, messages


def test_readable_scans_are_done_and_the_others_reported(inputs, finished):
    code, out, messages = finished
    assert code == 1
    assert {path.name for path in out.iterdir()} == {
        *("first_segmentation.nii.gz", "first_overlay.png", "series_segmentation.nii.gz", "series_overlay.png"),
        *("volumes.csv", "labels.txt", "labels.ctbl", "segmentations.html", "series_segmentation.dcm"),
    }
    reported = [message for message in messages if message.startswith("not segmented: ")]
    assert len(reported) == 2
    assert str(inputs / "scans" / "broken.nii.gz") in reported[0]
    assert str(inputs / "scans" / "four.nii") in reported[1]
    assert "three dimensions" in reported[1]


def test_results_lie_on_the_scans_grid(inputs, finished):
    source, result = (
        load(path) for path in (inputs / "scans" / "first.nii.gz", finished[1] / "first_segmentation.nii.gz")
    )
    assert result.shape == source.shape
    np.testing.assert_array_equal(result.affine, source.affine)
    assert result.get_data_dtype() == np.uint8
    assert set(np.unique(result.dataobj)) <= {0, 2, 5}
    dicom = load(finished[1] / "series_segmentation.nii.gz")
    assert dicom.shape == SHAPE[::-1]
    np.testing.assert_allclose(dicom.header.get_zooms(), (4, 5, 8))


def test_a_dicom_series_gets_a_dicom_segmentation(finished):
    content = pydicom.dcmread(finished[1] / "series_segmentation.dcm")
    assert [each.SegmentLabel for each in content.SegmentSequence] == ["liver", "label 5"]
    assert content.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "FrugalSeg ALPNet"
    label_map = read_nifti(finished[1] / "series_segmentation.nii.gz").array
    n_marked = np.unpackbits(np.frombuffer(content.PixelData, np.uint8)).sum()
    assert n_marked == (label_map > 0).sum() > 0


def test_volumes_are_those_of_the_written_files(finished):
    with (finished[1] / "volumes.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert [(r["scan"], r["label"], r["structure"]) for r in records] == [
        *(("first", "2", "liver"), ("first", "5", "label 5"), ("series", "2", "liver"), ("series", "5", "label 5"))
    ]
    for record in records:
        written = read_nifti(finished[1] / f"{record['scan']}_segmentation.nii.gz")
        count = (written.array == int(record["label"])).sum()
        assert int(record["voxels"]) == count
        voxel_ml = {"first": 5 * (4.8 * 6 + 2 * 1.5) / 1000, "series": 0.16}[record["scan"]]
        assert float(record["volume_ml"]) == pytest.approx(count * voxel_ml, abs=1e-4)
    assert any(int(record["voxels"]) for record in records)


def test_json_holds_the_table_and_the_failures(inputs, tmp_path, capsys):
    assert run(inputs, tmp_path, "--classes", "liver=2", "5", "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["out"], answer["found"], answer["segmented"]) == (str(tmp_path), 4, 2)
    with (tmp_path / "volumes.csv").open() as stream:
        table = list(csv.DictReader(stream))
    written = [{key: "" if value is None else str(value) for key, value in each.items()} for each in answer["results"]]
    assert written == table
    assert answer["failed"].keys() == {"broken", "four"}
    assert str(inputs / "scans" / "broken.nii.gz") in answer["failed"]["broken"]
    assert [Path(path).name for path in answer["left_out"]] == ["old_segmentation.nii.gz"]
    assert answer["not_drawn"] == {}


def test_volume_of_a_sheared_voxel_is_the_determinant():
    label_map = Volume(
        np.array([[[7, 7, 7, 1]]], np.uint8), np.array([[10, 5, 0, 0], [0, 10, 0, 0], [0, 0, 10, 0], [0, 0, 0, 1.0]])
    )
    (record,) = volumes("a", ScanSegmentation(label_map, {"organ": 0.5}), {"organ": 7})
    told = {"confidence": 0.5, "review": ""}
    assert record == {"scan": "a", "label": 7, "structure": "organ", "voxels": 3, "volume_ml": 3.0} | told


def test_results_are_kept_unless_told_otherwise_and_come_out_the_same(inputs, tmp_path, finished):
    assert run(inputs, tmp_path, scans=["scans/first.nii.gz"]) == 0
    result = tmp_path / "first_segmentation.nii.gz"
    assert result.read_bytes() == (finished[1] / result.name).read_bytes()
    result.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"exists already .*--overwrite"):
        run(inputs, tmp_path, scans=["scans/first.nii.gz"])
    assert result.read_bytes() == b"mine"
    assert run(inputs, tmp_path, "--overwrite", scans=["scans/first.nii.gz"]) == 0
    assert result.read_bytes() == (finished[1] / result.name).read_bytes()


def test_bad_support_names_its_files(inputs, tmp_path):
    write_nifti(tmp_path / "short.nii.gz", Volume(scan()[1][1:], AFFINE))
    with pytest.raises(DataError, match=r"A\.nii\.gz, .*short\.nii\.gz: .*Resample"):
        run(inputs, tmp_path, f"--support-label={tmp_path / 'short.nii.gz'}")
    with pytest.raises(DataError, match=r"absent\.nii: no such file or folder"):
        run(inputs, tmp_path, f"--support-label={tmp_path / 'absent.nii'}")
    with pytest.raises(ConfigError, match="given twice"):
        run(inputs, tmp_path, "--classes", "liver=2", "liver=5")
    assert not (tmp_path / "volumes.csv").exists()


def test_options_of_images_are_refused(inputs, tmp_path):
    with pytest.raises(ConfigError, match=r"^--images: not for .*\.pth, .* few-shot .*--support"):
        run(inputs, tmp_path, "--images", "x")
    with pytest.raises(ConfigError, match=r"^--support-label, --scans: missing; .*snapshot\.pth"):
        main([f"--checkpoint={inputs / 'snapshot.pth'}", f"--out={tmp_path}", "--support-image=A.nii.gz"])
    with pytest.raises(CheckpointError, match=r"method alpnet is few-shot \(segments scans\); expected .* dense"):
        DensePredictor.from_checkpoint(inputs / "snapshot.pth")
    assert not list(tmp_path.iterdir())


def test_the_encoder_of_a_network_may_propagate_labels(inputs, tmp_path):
    one = ["scans/first.nii.gz"]
    assert run(inputs, tmp_path / "own", scans=one) == 0
    assert run(inputs, tmp_path / "propagated", "--propagate", scans=one) == 0
    own, propagated = (
        read_nifti(tmp_path / name / "first_segmentation.nii.gz").array for name in ("own", "propagated")
    )
    assert set(np.unique(propagated)) == {0, 2, 5}
    assert not np.array_equal(own, propagated)
    assert f"Propagation, {inputs.name}/snapshot.pth" in (tmp_path / "propagated" / "segmentations.html").read_text()


def test_what_propagation_does_not_use_is_refused(inputs, tmp_path):
    with pytest.raises(ConfigError, match=r"^--parts: not with --propagate, which uses all annotated slices"):
        run(inputs, tmp_path, "--propagate", "--parts", "1")
    files = [f"--support-image={inputs / 'A.nii.gz'}", f"--support-label={inputs / 'L.nii.gz'}"]
    with pytest.raises(ConfigError, match=r"^--propagate: not for a segmentation without --checkpoint"):
        main([*files, f"--out={tmp_path}", "--propagate", f"--scans={inputs / 'scans'}"])
    assert not list(tmp_path.iterdir())


def test_an_unexpected_error_does_not_stop_the_others(inputs, tmp_path, monkeypatch, caplog):
    read_one = scans.read_volume

    def read_all_but_second(path, series=""):
        if path.name == "second.nii.gz":
            raise RuntimeError("out of memory")
        return read_one(path, series)

    write_nifti(tmp_path / "in" / "first.nii.gz", Volume(scan(1)[0], AFFINE))
    write_nifti(tmp_path / "in" / "second.nii.gz", Volume(scan(1)[0], AFFINE))
    write_nifti(tmp_path / "in" / "third.nii.gz", Volume(scan(2)[0], AFFINE))
    monkeypatch.setattr(scans, "read_volume", read_all_but_second)
    assert run(inputs, tmp_path / "out", scans=[tmp_path / "in"]) == 1
    (message,) = [each for each in caplog.messages if each.startswith("not segmented: ")]
    assert (
        f"{tmp_path / 'in' / 'second.nii.gz'}: RuntimeError: out of memory (tests/models/test_predict.py, line"
        in message
    )
    with (tmp_path / "out" / "volumes.csv").open() as stream:
        assert {record["scan"] for record in csv.DictReader(stream)} == {"first", "third"}


def test_overwriting_removes_overlays_of_replaced_label_maps(inputs, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert run(inputs, tmp_path, "--overlays", scans=["scans/first.nii.gz"]) == 0
    (tmp_path / "other_overlay.png").touch()
    assert run(inputs, tmp_path, "--overwrite", scans=["scans/first.nii.gz"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        *("first_segmentation.nii.gz", "other_overlay.png"),
        *("volumes.csv", "segmentations.html", "labels.txt", "labels.ctbl"),
    }
    assert [message for message in caplog.messages if message.startswith("removed 1 ")]


@pytest.mark.parametrize("earlier", [None, b"earlier"])
def test_on_a_full_disk_a_scan_is_named_and_nothing_is_left_in_part(inputs, tmp_path, monkeypatch, caplog, earlier):
    write, n_written = gzip.GzipFile.write, 0

    def write_in_part(self, content):
        nonlocal n_written
        n_written += 1
        if n_written == 2:  # the voxels of the first scan, after its header
            write(self, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    for name in ("a", "b"):
        write_nifti(tmp_path / f"in/{name}.nii.gz", Volume(scan(1)[0], AFFINE))
    out = tmp_path / "out"
    out.mkdir()
    if earlier:
        (out / "a_segmentation.nii.gz").write_bytes(earlier)
    monkeypatch.setattr(gzip.GzipFile, "write", write_in_part)
    assert run(inputs, out, "--overwrite", scans=[tmp_path / "in"]) == 1
    (message,) = [each for each in caplog.messages if each.startswith("not segmented: ")]
    assert f"in/a.nii.gz: {out / 'a_segmentation.nii.gz'}: cannot be written (No space left on device)" in message
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    assert found.pop("a_segmentation.nii.gz", None) == earlier
    assert set(found) == {"b_segmentation.nii.gz", "volumes.csv", "segmentations.html", "labels.txt", "labels.ctbl"}
    assert read_nifti(out / "b_segmentation.nii.gz").array.shape == scan(1)[0].shape


def test_class_must_be_a_number(inputs, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(inputs, tmp_path, "--classes", "liver")
    assert "liver=6" in capsys.readouterr().err


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_scans_are_found(tmp_path):
    touch(tmp_path, "nifti/b.nii", "nifti/a.NII.GZ", "nifti/.c.nii", "nifti/a_segmentation.nii.gz", "nifti/notes.txt")
    touch(tmp_path, "many/1/IMG1.dcm", "many/2/deep/0001", "many/DICOMDIR", "many/.DS_Store", "many/2/png/1.png")
    touch(tmp_path, "many/3/1.dcm", "many/3/late/1.2.840.17")
    found = [path.relative_to(tmp_path).as_posix() for path in find_scans(tmp_path)]
    assert found == ["many/1", "many/2/deep", "many/3", "many/3/late", "nifti/a.NII.GZ", "nifti/b.nii"]
    assert find_scans(tmp_path / "many" / "1") == [tmp_path / "many" / "1"]
    assert find_scans(tmp_path / "nifti" / "b.nii") == [tmp_path / "nifti" / "b.nii"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no scan found; looked for NIfTI files \(\.nii, .*DICOM"):
        find_scans(tmp_path / "empty")
    with pytest.raises(DataError, match=r"absent: no such file or folder\."):
        find_scans(tmp_path / "absent")


def test_names_stay_apart(tmp_path):
    paths = [tmp_path / name for name in ("a/T2", "b/T2", "b/c.v2.nii.gz", "b/../a/T2")]
    assert name_scans(paths) == {"a_T2": paths[0], "b_T2": paths[1], "b_c.v2": paths[2]}
    assert list(name_scans(paths[1:3])) == ["T2", "c.v2"]
    with pytest.raises(DataError, match=r"c\.nii, .*c\.nii\.gz: the same name but for the suffix"):
        name_scans([tmp_path / "c.nii", tmp_path / "c.nii.gz"])


def test_label_maps_among_scans_are_left_out_and_named(tmp_path):
    touch(tmp_path, *("a/case1.nii.gz", "a/case1_label.nii.gz", "a/case1_liver_seg.nii.gz", "a/segmental_2.nii.gz"))
    touch(tmp_path, *("b/images/x.nii", "b/labels/x.nii", "c/mask_only.nii.gz", "c/segmentations.html"))
    inventory = Inventory()
    found = [path.relative_to(tmp_path).as_posix() for path in find_scans(tmp_path, inventory)]
    assert found == ["a/case1.nii.gz", "a/segmental_2.nii.gz", "b/images/x.nii", "c/mask_only.nii.gz"]
    assert inventory.n_used == 4
    page, *labels = inventory.left_out.items()
    assert [path.name for path, _ in labels] == ["case1_label.nii.gz", "case1_liver_seg.nii.gz", "x.nii"]
    assert page == (tmp_path / "c/segmentations.html", RESULT)
    assert find_scans(tmp_path / "a/case1_label.nii.gz") == [tmp_path / "a/case1_label.nii.gz"]
