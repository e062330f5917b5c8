"""Exported networks: results of the checkpoint, a truthful card, no paths and ids, refused damage."""

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import models.export.__main__ as command
from dataloaders.catalog import dataset
from dataloaders.samples import Volume
from models import METHODS
from models.export.__main__ import main
from models.export.card import citation
from models.predict import DensePredictor, FewShotPredictor, PartialPredictor, SourcesPredictor
from models.training.load import read_trained
from models.training.trained_on import CASES
from tests.models.export_helpers import NETWORKS, card, write_checkpoint
from util.errors import CheckpointError, ConfigError, DataError, UserError
from util.files import file_sha256, write_json
from util.results.scores import make_scores, write_scores
from util.runtime import checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return {family: write_checkpoint(tmp_path_factory.mktemp(family), family) for family in NETWORKS}


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Folders of the last weights."""
    root = tmp_path_factory.mktemp("exported")
    for family, path in trained.items():
        main([str(path), "--out", str(root / family)])
    return root


def scan():
    """A scan with two structures, values 2 and 5, and its label map."""
    label = np.zeros((8, 64, 64), np.uint8)
    label[1:7, 8:32, 8:32], label[2:6, 36:60, 36:60] = 2, 5
    image = (100 + 60 * label + np.random.default_rng(0).normal(0, 10, label.shape)).astype(np.float32)
    affine = np.diag([-2.0, 2.0, 5.0, 1.0])
    return Volume(image, affine), Volume(label, affine)


def outputs(family, path, weights: Any = "last"):
    """Everything that a predictor of a family returns, as arrays."""
    image, label = scan()
    if family == "fewshot":
        predictor = FewShotPredictor.from_checkpoint(path, weights, "cpu")
        predictor.set_support(image, label)
        found = predictor.segment(image)
        return [found.label_map.array, np.array([value or 0.0 for value in found.confidence.values()])]
    if family == "sources":
        return [each.array for each in SourcesPredictor.from_checkpoint(path, weights, "cpu").predict([image])]
    kind, shape = (DensePredictor, (40, 50)) if family == "dense" else (PartialPredictor, (40, 50, 3))
    picture = np.random.default_rng(1).integers(0, 60_000, shape).astype(np.uint16 if family == "dense" else np.uint8)
    found = kind.from_checkpoint(path, weights, "cpu").predict(picture)
    return [*found.masks.values(), *found.probabilities.values()]


@pytest.mark.parametrize("family", NETWORKS)
def test_an_export_predicts_bit_by_bit_as_its_checkpoint(family, trained, exported):
    wanted = outputs(family, trained[family])
    assert any(np.unique(each).size > 1 for each in wanted)
    for path in (exported / family, exported / family / "model.safetensors"):
        for one, other in zip(outputs(family, path), wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_answer_tells_what_was_written(trained, tmp_path, capsys):
    main([str(trained["dense"]), "--out", str(tmp_path / "mine"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["out"] == str(tmp_path / "mine")
    assert found["files"] == sorted(path.name for path in (tmp_path / "mine").iterdir())
    assert (found["family"], found["weights"], found["has_scores"], found["onnx"]) == ("dense", "last", False, None)
    assert found["weights_sha256"] == file_sha256(tmp_path / "mine/model.safetensors")


def test_averaged_weights_are_exported_as_the_only_ones(trained, exported, tmp_path):
    main([str(trained["dense"]), "--out", str(tmp_path / "ema"), "--weights", "ema"])
    wanted = outputs("dense", trained["dense"], "ema")
    assert not all(map(np.array_equal, wanted, outputs("dense", trained["dense"])))
    for weights in ("last", "ema"):
        assert all(map(np.array_equal, outputs("dense", tmp_path / "ema", weights), wanted))
    with pytest.raises(CheckpointError, match=r"no averaged weights.*others were exported"):
        outputs("dense", exported / "dense", "ema")


@pytest.mark.parametrize("family", NETWORKS)
def test_no_file_has_paths_or_ids(family, exported):
    for file in (exported / family).iterdir():
        text = file.read_bytes()
        for secret in (b"secret", b"/home", b"JANE", b"RICHARD", b"ward7", str(exported).encode()):
            assert secret not in text, (file.name, secret)


def test_ids_of_published_sets_stay(trained, tmp_path):
    content = checkpoint.load(trained["fewshot"])
    checkpoint.save(tmp_path / "c.pt", content | {"dataset": dataset("CHAOST2").to_dict()})
    main([str(tmp_path / "c.pt"), "--out", str(tmp_path / "out")])
    assert FewShotPredictor.from_checkpoint(tmp_path / "out", device="cpu").spec == dataset("CHAOST2")


def test_an_export_can_be_exported_again(exported, tmp_path):
    main([str(exported / "dense"), "--out", str(tmp_path / "again")])
    assert file_sha256(tmp_path / "again/model.safetensors") == file_sha256(exported / "dense/model.safetensors")


# The card


def write_validation(folder, step=7, method="GCE", **metrics):
    """Scores of four images; with functions of the image's number, of ten."""
    metrics, n_cases = (metrics, 10) if metrics else ({"dice": lambda n: 0.8 + 0.01 * n}, 4)
    records = [
        {"method": method, "dataset": "MINE", "split": "test", "case": f"DOE{n}", "patient": f"DOE{n}",
         "structure": name, "metric": metric, "value": value(n), "weights": "last",
         "steps": step, "family": "dense", "seed": 3, "task": name, "alpha": "0", "beta": "0", "n_cases": n_cases}
        for n in range(n_cases) for name in ("disc", "box") for metric, value in metrics.items()
    ]  # fmt: skip
    write_scores(folder / "scores.csv", make_scores(records))
    return folder / "scores.csv"


def test_the_card_says_what_the_network_is(tmp_path):
    path = write_checkpoint(tmp_path, "dense")
    write_json(tmp_path / CASES, {"dataset": "MINE", "cases": {"DOE1": "DOE", "DOE2": "DOE", "ROE": "ROE"}})
    write_validation(tmp_path / "validation" / "1")
    write_validation(tmp_path / "validation" / "2", step=8)  # of other weights
    text = card(path, tmp_path / "out")
    for line in (
        "- trained on 3 cases of 2 patients", "| disc | 100 |", "| box | 300 |", "| `loss` | `gce` | `ce` |",
        "| `n_steps` | `7` |", "- the network sees 1 channel(s) of 32 x 32 pixels",
        "- licence of the data set: CC0", file_sha256(tmp_path / "out/model.safetensors"), "Step 7, weights: last.",
    ):  # fmt: skip
        assert line in text, line
    assert citation(METHODS["supervised"]) in text
    assert "Not a medical device" in text
    assert "Apache License 2.0" in text
    assert re.search(r"81\.\d+ ± \d\.\d+ \[\d+\.\d+, \d+\.\d+\], n = 4", text)  # mean and interval of 80 to 83
    assert "DOE" not in text


def test_the_validation_says_which_masks_are_to_be_looked_at(tmp_path):
    path = write_checkpoint(tmp_path, "dense")
    write_validation(tmp_path / "validation" / "1", confidence=lambda n: 0.5 + 0.05 * n, dice=lambda n: 0.6 + 0.02 * n)
    sentence = "Masks with a confidence below 0.725 are to be looked at"
    out = tmp_path / "far" / "from" / "the_validation"
    assert sentence in card(path, out)
    rule = {"below": pytest.approx(0.725), "correlation": pytest.approx(1.0), "n_masks": 20}
    assert read_trained(out)["review"] == rule
    assert sentence in card(out, tmp_path / "again")  # it stays with the network
    write_validation(tmp_path / "validation" / "1", confidence=lambda n: 0.9 - 0.05 * n, dice=lambda n: 0.6 + 0.02 * n)
    assert "to be looked at" not in card(path, tmp_path / "misleading")
    assert "review" not in read_trained(tmp_path / "misleading")


def test_scores_of_other_weights_are_not_those_of_the_network(tmp_path):
    path = write_checkpoint(tmp_path, "dense")
    write_validation(tmp_path / "validation" / "1", step=8)
    assert "No validation of these weights" in card(path, tmp_path / "one")
    given = write_validation(tmp_path / "given")
    assert "No validation" not in card(path, tmp_path / "two", "--scores", given)
    for step, method in ((8, "GCE"), (7, "T-Loss")):
        with pytest.raises(DataError, match="no scores of GCE, weights last, step 7"):
            card(path, tmp_path / "three", "--scores", write_validation(tmp_path / "other", step, method))
    assert not (tmp_path / "three").exists()


def test_other_families_have_cards_of_their_own(exported):
    texts = {family: (exported / family / "MODEL_CARD.md").read_text() for family in NETWORKS}
    assert "Any structure of the annotated scans" in texts["fewshot"]
    assert "Ouyang et al." in texts["fewshot"]
    assert "| `encoder_weights` | `(a file)` | `coco` |" in texts["fewshot"]
    assert "in_plane_mm: 2.0" in texts["sources"]
    assert "percentiles 0 and 100" in texts["sources"]
    assert "| box | 2 | both |" in texts["partial"]
    assert "data sets: EYES" in texts["partial"]


# What is refused


def test_damaged_and_foreign_files_are_refused(exported, tmp_path):
    folder = exported / "dense"
    weights, description = (folder / name for name in ("model.safetensors", "model.json"))
    intact, content = weights.read_bytes(), json.loads(description.read_text())

    def refused(match, state=intact, about=content):
        for name, data in (("model.safetensors", state), ("model.json", about)):
            text = data if isinstance(data, bytes) else json.dumps(data).encode()
            (tmp_path / name).write_bytes(text)
        with pytest.raises(CheckpointError, match=match):
            DensePredictor.from_checkpoint(tmp_path, device="cpu")

    changed = bytearray(intact)
    changed[-5] ^= 1
    refused("SHA-256 differ", bytes(changed))
    refused("SHA-256 differ", intact[:-100])
    refused("not valid JSON", about=b"{")
    refused("format 'other'; expected", about=content | {"format": "other"})
    refused("no step", about={key: value for key, value in content.items() if key != "step"})
    (tmp_path / "short").write_bytes(b"nothing")
    refused("not a file of safetensors", b"nothing", content | {"weights_sha256": file_sha256(tmp_path / "short")})
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign")
    sha256 = file_sha256(tmp_path / "foreign")
    refused("weights of another model", (tmp_path / "foreign").read_bytes(), content | {"weights_sha256": sha256})
    (tmp_path / "model.json").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.json"):
        DensePredictor.from_checkpoint(tmp_path / "model.safetensors", device="cpu")
    with pytest.raises(CheckpointError, match=r"no absent\.safetensors"):
        DensePredictor.from_checkpoint(tmp_path / "absent.safetensors", device="cpu")
    with pytest.raises(CheckpointError, match=r"expected one that is few-shot"):
        FewShotPredictor.from_checkpoint(folder, device="cpu")


def test_an_existing_folder_stays_and_a_failure_leaves_none(trained, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists"):
        main([str(trained["dense"]), "--out", str(tmp_path / "full")])

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_card", full_disk)
    with pytest.raises(UserError, match="No space left"):
        main([str(trained["dense"]), "--out", str(tmp_path / "new")])
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_files_of_the_authors_of_ssl_alpnet(trained, tmp_path):
    state = checkpoint.load(trained["fewshot"])["method"]
    checkpoint.save(tmp_path / "100000.pth", state | {"encoder.asppconv.0.weight": torch.zeros(1)})
    arguments = [str(tmp_path / "100000.pth"), "--out", str(tmp_path / "out")]
    with pytest.raises(ConfigError, match="--modelname"):
        main([*arguments, "--dataset", "chaost2"])
    with pytest.raises(ConfigError, match="--mean-std"):
        main([*arguments, "--dataset", "sabs", "--modelname", "resnet18"])
    main([*arguments, "--dataset", "chaost2", "--modelname", "resnet18"])
    image, label = scan()
    found, named = [], {"dataset": "chaost2", "modelname": "resnet18"}
    options: dict[str, Any]
    for path, options in ((tmp_path / "100000.pth", named), (tmp_path / "out", {})):
        predictor = FewShotPredictor.from_checkpoint(path, device="cpu", **options)
        predictor.set_support(image, label)
        found.append(predictor.predict(image).array)
    np.testing.assert_array_equal(*found)
    assert "SSL-ALPNet, trained on CHAOST2" in (tmp_path / "out/MODEL_CARD.md").read_text()
