"""A user's own scans from the table of their files to training batches."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from nibabel.nifti1 import Nifti1Pair

from data.check import check_folder
from data.prepare.__main__ import main
from data.prepare.scans import normalise, source_for
from dataloaders.catalog import dataset
from dataloaders.description import ClassSpec, DatasetSpec, FoldRule, GridRule, read_description
from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import open_fewshot
from dataloaders.io.geometry import Grid, paste_back
from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.ordering import LoaderOptions
from dataloaders.samples import Volume
from dataloaders.scans.labels import to_supplied_values
from dataloaders.scans.manifest import Manifest
from dataloaders.scans.preprocess import parameters_of
from util import items
from util.errors import ConfigError, DataError
from util.ids import natural_key

SIZE = 64
SPEC = DatasetSpec(
    "liver study",
    "scans",
    modality="MR",
    classes=(ClassSpec("liver", value=100), ClassSpec("tumour", value=2048)),
    files="scans.csv",
    grid=GridRule(size_px=SIZE),
    folds=FoldRule(number=2),
)
LABELLED, UNLABELLED = ("P7a", "P7b", "image_x_1", "müller 10"), ("dicom", "oblique")
OBLIQUE = np.array([[-1.9, 0.5, 0, 60], [-0.5, -1.9, 0.3, 70], [0, 0.1, 4, -20], [0, 0, 0, 1.0]])
AXIAL = np.diag([-2.0, -2.0, 4.0, 1.0])


def body(seed):
    """A noisy body with two structures, and its label map with the supplied values."""
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    label = np.zeros((6, SIZE, SIZE), np.uint16)
    label[1:5, (rows - 0.4) ** 2 + (columns - 0.35) ** 2 < 0.02] = 100
    label[2:5, (rows - 0.6) ** 2 + (columns - 0.65) ** 2 < 0.02] = 2048
    inside = (rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.2
    image = 20 + 300 * inside + 200 * (label == 100) + 400 * (label == 2048)
    return (image + np.random.default_rng(seed).normal(0, 8, label.shape)).clip(0).astype(np.uint16), label


@pytest.fixture
def study(tmp_path, write_dicom):
    """A folder with the description, the table and the files of six scans; returns the path of the description."""
    lines = ["id,image,label"]
    for seed, scan in enumerate((*LABELLED, "oblique")):
        image, label = body(seed)
        affine = OBLIQUE if scan in ("oblique", "P7b") else AXIAL
        write_nifti(tmp_path / f"{scan}.nii.gz", Volume(image, affine))
        if scan in LABELLED:
            write_nifti(tmp_path / f"{scan}-seg.nii.gz", Volume(label.astype(np.float32 if seed else np.int32), affine))
        lines.append(f"{scan},{scan}.nii.gz,{scan}-seg.nii.gz" if scan in LABELLED else f"{scan},{scan}.nii.gz,")
    write_dicom(tmp_path / "series", body(9)[0], step=(0.0, 0.0, 4.0), pixel_mm=(2.0, 2.0))
    (tmp_path / "scans.csv").write_text("\n".join([*lines, "dicom,series,"]), encoding="utf-8")
    (tmp_path / "study.json5").write_text(json.dumps(SPEC.to_dict()))
    return tmp_path / "study.json5"


def prepared(study):
    return study.parent / "data" / "liver study" / "prepared"


def prepare(study, *options):
    main([str(study), "--out", str(study.parent / "data"), *options])
    return prepared(study)


def config_for(folder, **changes):
    return FewShotConfig(dataset=str(folder), superpix_scale="MIDDLE", **changes)


def test_own_scans_go_from_the_table_to_a_batch(study):
    folder = prepare(study)
    assert check_folder(folder, SPEC, eval_fold=0) == []
    spec = read_description(folder / "dataset.json5")
    assert spec == replace(SPEC, files="")
    assert list(Manifest.load(folder, spec.name).scans) == sorted((*LABELLED, *UNLABELLED), key=natural_key)

    data = open_fewshot(config_for(folder), str(folder))
    assert data.spec == spec
    assert {*data.fold.train} >= {*UNLABELLED}
    assert {*data.fold.query, *data.fold.support} < {*LABELLED}
    episode = next(iter(data.loader(data.fit_normalisation(), 0, 4, range(1), LoaderOptions())))
    assert episode.query_image.shape == (4, 1, 1, SIZE, SIZE)
    assert torch.isfinite(episode.query_image).all()
    assert episode.query_mask.flatten(2).any(2).all()
    task = data.task(data.fit_normalisation(), "reference")
    assert task.support.classes == (1, 2)
    cases = [task.read_case(scan) for scan in task.query_scans]
    assert [scored.case.scan_id for scored in cases] == list(data.fold.query)
    assert set(np.unique(cases[0].truth)) == {0, 1, 2}


def test_files_that_are_not_in_the_table_are_counted(study, caplog, write_dicom):
    caplog.set_level(logging.INFO)
    folder = study.parent
    write_dicom(folder / "forgotten", body(3)[0])
    (folder / "P9.nii.gz").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    (folder / "more.zip").write_bytes(b"x")
    table = folder / "scans.csv"
    table.write_text(
        table.read_text().replace("id,image,label", "id,image,label,split").replace("series,", "series,,unused")
    )
    for name in ("P7a.nii.gz", "P7a-seg.nii.gz"):  # as a pair
        volume = read_nifti(folder / name)
        (folder / name).unlink()
        half = folder / name.replace(".nii.gz", ".hdr")
        Nifti1Pair(volume.array.transpose(2, 1, 0), volume.affine).to_filename(half)
    table.write_text(table.read_text().replace("P7a.nii.gz", "P7a.hdr").replace("P7a-seg.nii.gz", "P7a-seg.hdr"))
    prepare(study, "--step", "normalise")
    assert caplog.messages[-1] == (
        f"{table}: 26 files found, 11 used, 15 left out: "
        "7 not in the table (P9.nii.gz, forgotten/IMG-0001-00001.dcm, forgotten/IMG-0001-00002.dcm, "
        "forgotten/IMG-0001-00003.dcm, forgotten/IMG-0001-00004.dcm, ...); "
        "6 of cases that are not used (column split) (series/IMG-0001-00001.dcm, series/IMG-0001-00002.dcm, "
        "series/IMG-0001-00003.dcm, series/IMG-0001-00004.dcm, series/IMG-0001-00005.dcm, ...); "
        "1 archive, to be unpacked first (more.zip); 1 neither scan nor image (notes.txt)"
    )


def test_prepared_labels_come_back_to_the_users_grid_and_values(study):
    folder = prepare(study, "--step", "normalise")
    manifest = Manifest.load(folder, SPEC.name)
    assert manifest.parameters["label_values"] == [["liver", 100], ["tumour", 2048]]
    for scan in LABELLED:
        label = read_nifti(folder / f"label_{scan}.nii.gz")
        assert set(np.unique(label.array)) == {0, 1, 2}
        grid = Grid.from_json(manifest.scans[scan]["original"])
        back = paste_back(label, grid.shape, grid.affine)
        original = read_nifti(study.parent / f"{scan}-seg.nii.gz")
        np.testing.assert_allclose(back.affine, original.affine, atol=1e-4)
        np.testing.assert_array_equal(to_supplied_values(back.array, SPEC), original.array)


def test_the_threshold_of_each_scan_is_recorded_and_the_same_for_any_number_of_processes(study, monkeypatch):
    from data.superpixels import scans as superpixels

    folder = prepare(study)
    records = Manifest.load(folder, SPEC.name).records
    above = {
        name: record.facts["foreground_above"] for name, record in records.items() if name.startswith("superpix-MIDDLE")
    }
    assert all(20 < value < 520 for value in above.values())
    assert len(set(above.values())) == len(above) == 6
    first = read_nifti(folder / "superpix-MIDDLE_P7a.nii.gz").array
    monkeypatch.setattr(superpixels, "SLICES_PER_BLOCK", 1)
    monkeypatch.setattr(items, "parallel_map", lambda function, items, jobs, text: map(function, list(items)))
    (folder / "superpix-MIDDLE_P7a.nii.gz").unlink()
    superpixels.write_pseudo_labels(folder, SPEC, jobs=2)
    np.testing.assert_array_equal(read_nifti(folder / "superpix-MIDDLE_P7a.nii.gz").array, first)


def test_only_what_has_changed_is_prepared_again(study, caplog):
    folder = prepare(study)
    lines = (study.parent / "scans.csv").read_text(encoding="utf-8").splitlines()
    by_id = {line.split(",")[0]: line for line in lines}
    by_id["P7a"] = "P7a,P7a.nii.gz,"  # its label is withdrawn
    del by_id["oblique"]
    (study.parent / "scans.csv").write_text("\n".join(by_id.values()), encoding="utf-8")
    with caplog.at_level(logging.INFO):
        prepare(study)
    done = [line for line in caplog.messages if line.startswith("liver study scan") and line.endswith(": prepared")]
    assert done == ["liver study scan P7a: prepared"]
    assert f"{folder}: removed the prepared scans oblique, which are not in the table" in caplog.messages
    assert not list(folder.glob("*_oblique.nii.gz"))
    assert not (folder / "label_P7a.nii.gz").exists()
    assert check_folder(folder, SPEC) == []

    caplog.clear()
    content = json.loads(study.read_text()) | {
        "classes": [{"name": "tumour", "value": 2048}, {"name": "liver", "value": 100}]
    }
    study.write_text(json.dumps(content))
    with caplog.at_level(logging.INFO):
        prepare(study)
    assert "liver study: the parameters have changed; every scan is prepared again" in caplog.messages
    assert set(np.unique(read_nifti(folder / "label_P7b.nii.gz").array[:2])) == {0, 2}  # liver alone


def test_patients_and_folds_of_the_table_reach_the_folds(study):
    lines = ["id,image,label,patient,fold"]
    lines += [f"{scan},{scan}.nii.gz,{scan}-seg.nii.gz,,{fold}" for scan, fold in zip(LABELLED, "0110", strict=True)]
    lines += ["o,oblique.nii.gz,,image_x_1,"]
    (study.parent / "scans.csv").write_text("\n".join(lines), encoding="utf-8")
    folder = prepare(study, "--step", "normalise")
    fold = open_fewshot(config_for(folder), str(folder)).fold
    assert (fold.query, fold.support) == (("P7a", "müller 10"), ("P7b",))
    assert fold.train == ("image_x_1", "o")
    lines[-1] = "o,oblique.nii.gz,,müller 10,"
    (study.parent / "scans.csv").write_text("\n".join(lines), encoding="utf-8")
    prepare(study, "--step", "normalise")
    assert open_fewshot(config_for(folder), str(folder)).fold.train == ("image_x_1",)


def test_scans_without_any_label_are_trained_on_but_not_scored(study):
    (study.parent / "scans.csv").write_text("id,image\nb,P7a.nii.gz\na,oblique.nii.gz\n")
    folder = prepare(study)
    assert check_folder(folder, SPEC, eval_fold=0) == []
    data = open_fewshot(config_for(folder), str(folder))
    assert data.fold.train == ("a", "b")
    next(iter(data.loader(data.fit_normalisation(), 0, 2, range(1), LoaderOptions())))
    with pytest.raises(DataError, match="nothing can be scored, as no scan has a label"):
        data.task(data.fit_normalisation(), "blind")
    excluding = open_fewshot(config_for(folder, exclude_cls_list=(1,)), str(folder))
    with pytest.raises(DataError, match=r"no training scan of fold 0 has a label.*setting 2.*setting1"):
        excluding.loader(data.fit_normalisation(), 0, 2, range(1), LoaderOptions())


def test_scans_without_label_are_left_out_where_labels_are_needed(study, caplog):
    folder = prepare(study)
    data = open_fewshot(config_for(folder, exclude_cls_list=(2,)), str(folder))
    loader = data.loader(data.fit_normalisation(), 0, 2, range(1), LoaderOptions())
    assert "are not trained on: they have no label" in caplog.text
    assert all(scan in caplog.text for scan in UNLABELLED)
    next(iter(loader))


def test_a_label_that_was_lost_after_preparation_is_an_error(study):
    folder = prepare(study)
    (folder / "label_P7a.nii.gz").unlink()
    (finding, *_) = check_folder(folder, SPEC)
    assert (finding.severity, finding.file.name) == ("error", "label_P7a.nii.gz")


def test_prepared_intensities_as_they_are(study):
    """Without clipping, window, border and resampling the prepared array is the user's."""
    spec = replace(SPEC, grid=GridRule(size_px=SIZE, axis_codes="LPS"))
    normalise(spec, study.parent / "data", parameters_of(spec), raw=study.parent / "scans.csv")
    image = read_nifti(prepared(study) / "image_P7a.nii.gz")
    np.testing.assert_array_equal(image.array, read_nifti(study.parent / "P7a.nii.gz").array)
    np.testing.assert_allclose(image.affine, AXIAL)


def test_a_set_without_files_is_refused():
    with pytest.raises(ConfigError, match=r"liver study: the description names no files.*frugalseg describe"):
        source_for(replace(SPEC, files=""))
    assert source_for(dataset("CHAOST2")).converted_folder
