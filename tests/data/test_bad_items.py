"""One bad item in a set: it is named with the reason, the others are done, nothing is trained on unaware, and the
remedies in the messages work."""

import logging
import re
import shlex
import shutil

import pytest

from data.check import rules
from data.check.__main__ import main as check
from data.noise.__main__ import main as noise
from data.phantom import write_phantom
from data.prepare import images as prepare_images_module
from data.prepare.__main__ import main as prepare
from data.superpixels.__main__ import main as superpixels
from dataloaders.catalog import dataset
from dataloaders.images.folder import ImageFolder
from dataloaders.scans import manifest as manifests
from util.errors import DataError, FailedItemsError, UserError
from util.files import read_json

MAINS = {"prepare": prepare, "check": check, "superpixels": superpixels, "noise": noise}


@pytest.fixture(scope="module")
def raw_scans(tmp_path_factory):
    out = tmp_path_factory.mktemp("chaos")
    write_phantom("chaost2", out, n_scans=3, size_px=32)
    return out


@pytest.fixture(scope="module")
def raw_images(tmp_path_factory):
    out = tmp_path_factory.mktemp("isic")
    write_phantom("isic2017", out, n_scans=6, size_px=32)
    return out


@pytest.fixture
def copied(raw_scans, raw_images, tmp_path):
    for source, name in ((raw_scans, "scans"), (raw_images, "images")):
        shutil.copytree(source, tmp_path / name)
    return tmp_path


def messages(caplog) -> str:
    return "\n".join(caplog.messages)


def printed(capsys) -> list[str]:
    """The lines on stdout since the last call."""
    return capsys.readouterr().out.splitlines()


def follow(text: str, **places: str) -> list[str]:
    """The command in back-quotes of a message, with places for DIR; runs it and returns its words."""
    command = re.search(r"`frugalseg (\w+) ([^`]*)`", text)
    assert command, text
    words = shlex.split(command[2])
    for option, place in places.items():
        words = [*words[: words.index(f"--{option}") + 1], place, *words[words.index(f"--{option}") + 2 :]]
    MAINS[command[1]](words)
    return words


def test_a_damaged_scan_fails_alone_and_is_done_when_it_is_mended(copied, caplog, capsys):
    caplog.set_level(logging.INFO)
    patients = sorted((copied / "scans/MR").iterdir(), key=lambda path: int(path.name))
    file = sorted((patients[0] / "T2SPIR/DICOM_anon").iterdir())[0]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 3])
    (patients[1] / "T2SPIR/Ground").rename(copied / "elsewhere")
    (copied / "scans/MR/patient1").mkdir()
    (copied / "scans/MR/patient1/1.dcm").touch()
    (copied / "scans/MR/a.zip").touch()
    command = ["chaost2", "--raw", str(copied / "scans"), "--out", str(copied / "data"), "--size-px", "32"]
    with pytest.raises(FailedItemsError, match=r"step convert: 2 of 3 failed, the others are done:") as caught:
        prepare(command)
    assert all(str(patient) in str(caught.value) for patient in patients[:2])
    assert "1 in patient1, which is no patient number" in messages(caplog)
    assert "1 archive, to be unpacked first (a.zip)" in messages(caplog)
    folder = copied / "data" / dataset("chaost2").prepared_folder()
    good = {path.name.partition("_")[0] for path in folder.glob(f"*_{patients[2].name}.nii.gz")}
    assert good == {"image", "label", "superpix-MIDDLE"}
    failed = read_json(folder / manifests.FILE_NAME)["failed"]
    assert set(failed) == {patient.name for patient in patients[:2]}
    assert check([str(folder), "--scale", "none"]) == 1
    found = [line for line in printed(capsys) if "could not be prepared the last time" in line]
    assert len(found) == 2
    file.write_bytes(content)
    (copied / "elsewhere").rename(patients[1] / "T2SPIR/Ground")
    words = follow(found[0], raw=str(copied / "scans"), out=str(copied / "data"))
    assert words[-2:] == ["--size-px", "32"]
    assert "failed" not in read_json(folder / manifests.FILE_NAME)
    check([str(folder)])
    assert not [line for line in printed(capsys) if line.startswith("error")]


def test_two_folders_of_one_patient_are_refused(copied):
    name = sorted(path.name for path in (copied / "scans/MR").iterdir())[0]
    (copied / f"scans/MR/0{name}/T2SPIR").mkdir(parents=True)
    with pytest.raises(DataError, match=rf"MR/0?{name}, .*MR/0?{name}: two folders of one patient"):
        prepare(["chaost2", "--raw", str(copied / "scans"), "--out", str(copied / "data"), "--step", "convert"])


def test_a_damaged_image_fails_alone_and_any_error_does(copied, monkeypatch, caplog, capsys):
    caplog.set_level(logging.INFO)
    hash_inputs = prepare_images_module._hash_inputs
    first = []

    def hash_all_but_one(files, settings):
        first.append(files[0].name)
        if files[0].name == first[0]:
            raise OverflowError("Python int too large")
        return hash_inputs(files, settings)

    command = ["isic2017", "--raw", str(copied / "images"), "--out", str(copied / "data"), "--size-px", "32"]
    command += ["--split", "random:0.34"]
    with monkeypatch.context() as patch:
        patch.setattr(prepare_images_module, "_hash_inputs", hash_all_but_one)
        with pytest.raises(FailedItemsError, match=r"1 of 6 failed, .*\n.*OverflowError: Python int too large"):
            prepare(command)
    folder = ImageFolder(copied / "data/ISIC2017/prepared_32px")
    assert len(folder.rows) == 5
    printed(capsys)
    assert check([str(folder.folder)]) == 1
    told = "\n".join(printed(capsys))
    assert "1 images could not be prepared the last time" in told
    follow(told.replace("--out DIR", "--out DIR --split random:0.34"), raw=command[2], out=command[4])
    assert len(ImageFolder(folder.folder).rows) == 6
    assert check([str(folder.folder)]) == 0


def test_noise_and_superpixels_name_bad_files_and_finish_later(copied, capsys):
    places = ["--raw", str(copied / "images"), "--out", str(copied / "data")]
    prepare(["isic2017", *places, "--size-px", "32", "--split", "random:0.34"])
    folder = ImageFolder(copied / "data/ISIC2017/prepared_32px")
    bad, good = folder.ids("train")[:2]
    path = folder.mask_path(bad, "lesion")
    mask = path.read_bytes()
    path.write_bytes(b"no picture")
    for main, options in ((noise, ["--alpha", "1", "--beta", "0.5"]), (superpixels, ["--n-segments", "8"])):
        with pytest.raises(FailedItemsError, match=rf"1 of 4 failed.*\n.*{bad}\.png: cannot be read"):
            main([str(folder.folder), *options])
    made = {file.parents[1].name for file in folder.folder.rglob(f"{good}.png")} & {"lesion", "superpixels"}
    assert made == {"lesion", "superpixels"}
    assert not [*folder.folder.rglob("noise.json"), *folder.folder.rglob("superpixels.json")]
    path.write_bytes(mask)
    check([str(folder.folder), "--noise", "1", "0.5", "--superpixels"])
    unfinished = [line for line in printed(capsys) if "missing, or not finished" in line]
    assert len(unfinished) == 2
    for told in unfinished:
        follow(told)
    assert check([str(folder.folder), "--noise", "1", "0.5", "--superpixels"]) == 0


def test_a_check_that_breaks_is_a_finding(make_prepared, tmp_path, capsys, monkeypatch):
    folder = make_prepared(tmp_path / "prepared", [1, 2])

    def broken(prepared):
        raise ZeroDivisionError("seven")
        yield

    monkeypatch.setattr(rules, "RULES", (broken, *rules.RULES))
    (folder / "image_77.nii.gz").symlink_to("nowhere")
    assert check([str(folder), "--dataset", "chaost2", "--scale", "none"]) == 1
    found = "\n".join(printed(capsys))
    assert "cannot be checked for broken" in found
    assert "image_77.nii.gz: no regular file, or a link to nothing" in found


@pytest.mark.parametrize(
    "arguments",
    ["size-px 0", "size-px -5", "jobs 0", "spacing-mm 0 1 1", "spacing-mm nan 1 1", "min-foreground-px 0", "step all2"],
)
def test_impossible_values_are_one_message(arguments, capsys):
    with pytest.raises(SystemExit):
        prepare(["chaost2", *f"--{arguments}".split()])
    assert re.search(r"error: argument --\S+: (.*expected|invalid choice)", capsys.readouterr().err)


def test_an_unwritable_place_is_one_message(copied):
    (copied / "data").touch()
    with pytest.raises(UserError, match="cannot be written"):
        prepare(["isic2017", "--raw", str(copied / "images"), "--out", str(copied / "data"), "--split", "random:0.34"])


def test_the_phantom_of_a_message_can_be_prepared(tmp_path):
    with pytest.raises(DataError) as caught:
        prepare(["chaost2", "--raw", str(tmp_path), "--out", str(tmp_path)])
    assert "`frugalseg phantom chaost2 --out DIR`" in str(caught.value)
