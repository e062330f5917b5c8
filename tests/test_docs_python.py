"""The Python examples of the documents run, on networks of random weights and small files."""

import re
from pathlib import Path

import numpy as np
import pytest

from dataloaders.io.nifti import write_nifti
from dataloaders.io.png import write_png
from dataloaders.samples import Volume
from models import predict
from tests.models.export_helpers import write_checkpoint

DOCS = Path(__file__).parents[1] / "docs"
FAMILIES = {
    "DensePredictor": "dense",
    "PartialPredictor": "partial",
    "FewShotPredictor": "fewshot",
    "SourcesPredictor": "sources",
    "PartialScanPredictor": "partial_scans",
    "SelfTrainedPredictor": "self_trained",
    "PropagationPredictor": "",  # needs no checkpoint
}


def examples():
    """Name of the predictor -> the code."""
    found = {}
    for page in ("predict.md", "predict_own_scan.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            found[re.findall(r"\b\w+Predictor\b", code)[0]] = code
    return found


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files that the examples name, in the working directory."""
    monkeypatch.chdir(tmp_path)
    label = np.zeros((8, 64, 64), np.uint8)
    label[1:7, 8:32, 8:32], label[2:6, 36:60, 36:60], label[1:7, 40:60, 4:28] = 1, 4, 6
    image = (100 + 40 * label + np.random.default_rng(0).normal(0, 10, label.shape)).astype(np.float32)
    affine = np.diag([-2.0, 2.0, 5.0, 1.0])
    for name in ("scan", "annotated", "cine"):
        write_nifti(Path(f"{name}.nii.gz"), Volume(image, affine))
    write_nifti(Path("annotated_label.nii.gz"), Volume(label, affine))
    return tmp_path


def test_every_predictor_has_an_example():
    assert examples().keys() == FAMILIES.keys() == {name for name in vars(predict) if name.endswith("Predictor")}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_examples_run(name, files):
    for number in range(2 if FAMILIES[name] else 0):
        Path(f"fold{number}.pt").write_bytes(write_checkpoint(files, FAMILIES[name]).read_bytes())
    colours = (3,) * (name == "PartialPredictor")
    write_png(Path("image.png"), np.random.default_rng(1).integers(0, 255, (40, 50, *colours), dtype=np.uint8))
    code = re.sub(r'masks\["lesion"\]', 'masks["disc"]', examples()[name])
    code = re.sub(r"^(found\.\w+|prediction\.\S+?)(?=  #)", r"shown = \1", code, flags=re.MULTILINE)
    place = {}
    exec(compile(code, f"the example of {name}", "exec"), place)
    made = place.get("label_map", place.get("shown", place.get("label_maps")))
    made = made[0] if isinstance(made, list) else made
    array = np.asarray(getattr(made, "array", made))
    assert array.shape == ((40, 50) if "image.png" in code else (8, 64, 64))
    if isinstance(made, Volume):
        assert set(np.unique(array)) <= {0, *place["predictor"].structures.values()}
        np.testing.assert_allclose(made.affine, np.diag([-2.0, 2.0, 5.0, 1.0]))
