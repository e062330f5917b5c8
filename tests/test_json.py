"""`--json`: one document on stdout with plain keys and no NaN, also where items failed."""

import json
import logging
import math
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from data.phantom import write_phantom
from dataloaders.catalog import dataset
from frugalseg import COMMANDS, dispatch
from util.errors import ConfigError, DataError, FailedItemsError
from util.items import raise_failures, run_all
from util.parser import answering, print_json
from util.results.scores import read_scores

DOCUMENTED = Path(__file__).parents[1] / "docs/command_line.md"


def refuse(constant):
    raise AssertionError(f"{constant} in the document")


@pytest.fixture
def ask(capsys, caplog):
    """Runs a command with `--json`; returns its document."""
    caplog.set_level(logging.INFO)

    def run(*words, fails=False):
        capsys.readouterr()
        if fails:
            with pytest.raises(FailedItemsError):
                dispatch([*map(str, words), "--json"])
        else:
            assert not dispatch([*map(str, words), "--json"])
        return json.loads(capsys.readouterr().out, parse_constant=refuse)

    return run


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("raw")
    write_phantom("chaost2", out / "scans", n_scans=2, size_px=32)
    write_phantom("isic2017", out / "images", n_scans=6, size_px=32)
    return out


@pytest.fixture
def images(raw, tmp_path):
    """The prepared folder of six images."""
    shutil.copytree(raw / "images", tmp_path / "raw")
    words = ["isic2017", "--raw", tmp_path / "raw", "--out", tmp_path / "data", "--size-px", "32"]
    return [*words, "--split", "random:0.34"], tmp_path / "data/ISIC2017/prepared_32px"


def test_values_are_plain(capsys):
    print_json({"a": np.float32(0.5), 1: [math.nan, np.nan, math.inf], "c": (Path("x"), np.array([1, 2]), None, True)})
    text = capsys.readouterr().out
    assert json.loads(text, parse_constant=refuse) == {"a": 0.5, "1": [None] * 3, "c": ["x", [1, 2], None, True]}


def test_the_answer_comes_also_when_items_fail(capsys):
    steps = [{"a": "a: bad", "b": "b: bad"}, {}, {"a": "a: worse", "b": "b: bad"}]

    def work():
        with answering(True) as answer:
            answer["folder"] = "x"
            run_all(partial(raise_failures, failures, 3, "step") for failures in steps)

    with pytest.raises(FailedItemsError):
        work()
    told = {"folder": "x", "failed": {"a": "a: bad; a: worse", "b": "b: bad"}}
    assert json.loads(capsys.readouterr().out) == told


def test_without_an_answer_stdout_is_empty(capsys):
    def work():
        with answering(True) as answer:
            answer["folder"] = "x"
            raise DataError("nothing there")

    with pytest.raises(DataError):
        work()
    with answering(False) as answer:
        answer["folder"] = "x"
    assert capsys.readouterr().out == ""


def test_prepared_scans_and_their_superpixels(raw, tmp_path, ask):
    words = ["chaost2", "--raw", raw / "scans", "--out", tmp_path / "data", "--size-px", "32"]
    found = ask("prepare", *words, "--step", "convert")
    assert (found["prepared"], found["labelled"], found["failed"]) == ([], [], {})
    found = ask("prepare", *words, "--step", "normalise")
    folder = Path(found["folder"])
    assert (found["dataset"], found["kind"], found["failed"]) == ("CHAOST2", "scans", {})
    ids = found["prepared"]
    assert found["labelled"] == ids == sorted((folder / f"image_{each}.nii.gz").exists() and each for each in ids)
    assert len(ids) == 2
    (folder / f"image_{ids[1]}.nii.gz").write_bytes(b"no scan")
    found = ask("superpixels", folder, "--scale", "SMALL", fails=True)
    assert found["scale"] == "SMALL"
    assert list(found["n_superpixels"]) == [ids[0]]
    assert found["n_superpixels"][ids[0]] > 10
    assert list(found["failed"]) == [ids[1]]
    assert f"image_{ids[1]}.nii.gz" in found["failed"][ids[1]]


def ids_of(found):
    return [each for ids in found["prepared"].values() for each in ids]


def test_images_that_fail_are_in_the_answer(images, ask):
    words, folder = images
    bad = sorted(Path(words[2]).rglob("ISIC*.jpg"))[0]
    content = bad.read_bytes()
    bad.write_bytes(b"no picture")
    found = ask("prepare", *words, fails=True)
    assert found["folder"] == str(folder)
    assert bad.stem not in ids_of(found)
    assert len(ids_of(found)) == 5
    assert list(found["failed"]) == [bad.stem]
    bad.write_bytes(content)
    found = ask("prepare", *words)
    assert bad.stem in ids_of(found)
    assert found["failed"] == {}


def test_without_any_image_there_is_only_what_failed(images, ask):
    words, _ = images
    for path in Path(words[2]).rglob("ISIC*.jpg"):
        path.write_bytes(b"no picture")
    found = ask("prepare", *words, fails=True)
    assert found["prepared"] == {"train": [], "validation": [], "test": [], "unused": []}
    assert len(found["failed"]) == 6


def test_noise_and_superpixels_of_images(images, ask):
    words, folder = images
    train = ask("prepare", *words)["prepared"]["train"]
    found = ask("noise", folder, "--alpha", "0.5", "1", "--beta", "0.5")
    assert [(each["alpha"], each["beta"], each["n_images"]) for each in found["noise"]] == [
        *[(0.5, 0.5, len(train)), (1.0, 0.5, len(train))]
    ]
    assert all(Path(each["folder"], f"{train[0]}.png").exists() for each in found["noise"])
    assert 0.5 < found["noise"][1]["r_fg"] < 1
    (made,) = ask("superpixels", folder, "--n-segments", "8")["superpixels"]
    assert made["structure"] == "lesion"
    assert Path(made["folder"], f"{train[0]}.png").exists()
    assert made["n_segments"]["min"] <= made["n_segments"]["mean"] <= made["n_segments"]["max"]
    assert 0 < made["structures"]["lesion"]["majority_dice"] <= 1
    (folder / f"masks/lesion/{train[0]}.png").write_bytes(b"no picture")
    found = ask("noise", folder, "--alpha", "1", "--beta", "0.7", fails=True)
    assert (found["noise"], list(found["failed"])) == ([], [train[0]])


def test_a_described_folder_and_what_is_left_out(tmp_path, ask, raw):
    source, ignored = raw / "images/ISIC-2017_Training_Data", shutil.ignore_patterns("*_superpixels.png")
    folder = shutil.copytree(source, tmp_path / "mine/images", ignore=ignored)
    (folder.parent / "notes.docx").write_bytes(b"x")
    found = ask("describe", folder.parent, "--out", tmp_path / "mine.json5")
    assert [Path(found[name]).exists() for name in ("description", "table", "report")] == [True] * 3
    assert (found["kind"], found["cases"], found["labelled"]) == ("images", len(list(folder.glob("*.jpg"))), 0)
    assert found["modality"] is None
    assert "notes.docx" in found["left_out"]
    assert found["files_found"] == found["cases"] + len(found["left_out"])
    assert [each["name"] for each in found["classes"]] == ["object"]


def test_own_scans_tell_which_files_are_not_used(make_prepared, tmp_path, ask):
    folder = make_prepared(tmp_path / "scans", [1, 2])
    (folder / "notes.txt").touch()
    lines = ["id,image,label", *(f"{n},image_{n}.nii.gz,label_{n}.nii.gz" for n in (1, 2))]
    (folder / "mine.csv").write_text("\n".join(lines))
    classes = ", ".join(f"{{ name: 'c{n}', value: {n} }}" for n in (1, 2, 3, 4))
    about = "name: 'MINE', kind: 'scans', modality: 'MR', files: 'mine.csv', superpixels: false"
    (folder / "mine.json5").write_text(f"{{ {about}, classes: [{classes}] }}")
    found = ask("prepare", folder / "mine.json5", "--out", tmp_path / "data", "--size-px", "32")
    assert found["prepared"] == ["1", "2"]
    assert found["left_out"][str(folder / "notes.txt")] == "neither scan nor image"
    assert found["files_found"] == 4 + len(found["left_out"])


THRESHOLD = ["threshold", "chaost2", "label_sets=all", "pictures=False", "device=cpu"]
THRESHOLD += ["surface_scores=False", "save_predictions=False", "protocol=blind"]


def of_validation(folder, logs):
    return [*THRESHOLD, f"path.data_dir={folder}", f"path.log_dir={logs}"]


def test_a_validation_and_its_table(prepared_folder, tmp_path, ask):
    found = ask("validate", *of_validation(prepared_folder, tmp_path / "logs"))
    scores = read_scores(Path(found["folder"]) / "scores.csv")
    first = found["tables"][0]
    assert (found["cases"], found["failed"], found["missing"]) == (4, {}, [])
    assert (first["metric"], first["breakdown"]) == ("dice", "")
    liver = next(each for each in first["figures"] if each["column"].lower() == "liver")
    assert liver["mean"] == pytest.approx(scores.query("metric == 'dice' and structure == 'LIVER'")["value"].mean())
    assert liver["n_cases"] == 4
    gathered = ask("collect", f"path.log_dir={tmp_path / 'logs'}")
    assert gathered["folder"] == str(tmp_path / "logs")
    assert gathered["left_out"] == []
    assert gathered["tables"][0]["metric"] == "dice"


def test_a_validation_with_failures_tells_them_and_exits_with_1(make_prepared, tmp_path, capsys):
    folder = make_prepared(tmp_path / "data", dataset("CHAOST2").cases[:8])
    words = [*of_validation(folder, tmp_path / "logs"), "--json"]
    answer_of(["validate", *words, "exp_prefix=whole"], 0, capsys)
    (folder / "image_5.nii.gz").write_text("no scan")
    found = json.loads(answer_of(["validate", *words], 1, capsys), parse_constant=refuse)
    assert (found["cases"], list(found["failed"])) == (4, ["5"])
    assert "image_5.nii.gz" in found["failed"]["5"]
    assert {each["n_cases"] for each in found["tables"][0]["figures"]} == {3}
    gathered = json.loads(answer_of(["collect", f"path.log_dir={tmp_path / 'logs'}", "--json"], 1, capsys))
    assert ["could not be scored" in each for each in gathered["left_out"]] == [True]
    assert [each["n_cases"] for each in gathered["tables"][0]["figures"]] == [4] * 5  # four organs and their mean
    for scan in (1, 2, 3):
        (folder / f"image_{scan}.nii.gz").write_text("no scan")
    found = json.loads(answer_of(["validate", *words], 1, capsys))
    assert (found["result"], list(found["failed"])) == (None, ["1", "2", "3", "5"])
    assert answer_of(["validate", *words, "eval_fold=77"], 1, capsys) == ""


def answer_of(words, code, capsys):
    """What a command prints on stdout; it must end with a code."""
    capsys.readouterr()
    try:
        found = dispatch(words) or 0
    except SystemExit as stopped:
        found = stopped.code
    assert found == code
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [("train", "print_config", "alpnet"), ("validate", "print_named_configs")])
def test_commands_that_print_texts_refuse_it(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        dispatch([*words, "--json"])
    assert stopped.value.code == ConfigError.exit_code
    told = capsys.readouterr()
    assert told.out == ""
    assert f"--json: {words[1]} prints a text" in told.err


def test_the_document_lists_every_command_with_an_answer():
    section = DOCUMENTED.read_text(encoding="utf-8").partition("\n## JSON\n")[2].partition("\n## ")[0]
    listed = {name for cell in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE) for name in cell.split("`")[1::2]}
    answering_commands = {"validate", "collect", "train", "suspects", "probabilities", "pseudo-labels"}
    for name, command in COMMANDS.items():
        module = __import__(command.module, fromlist=["make_parser"])
        if not command.leading and name != "demo":
            options = {option for action in module.make_parser()._actions for option in action.option_strings}
            answering_commands |= {name} if "--json" in options else set()
    assert listed == answering_commands
