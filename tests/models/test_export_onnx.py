"""Networks as ONNX: the outputs of PyTorch, free axes, and what is refused."""

import pytest
import torch

from models.export import onnx as onnx_export
from models.export.__main__ import main
from models.predict import FewShotPredictor, SourcesPredictor
from tests.models.export_helpers import card, write_checkpoint
from tests.models.methods.sources_helpers import make
from util.errors import ConfigError, UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    families = ("dense", "fewshot", "sources")
    return {family: write_checkpoint(tmp_path_factory.mktemp(family), family) for family in families}


def run_onnx(path, image):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def test_onnx_has_the_logits_for_images_of_other_sizes(trained, tmp_path):
    text = card(trained["sources"], tmp_path / "out", "--onnx")
    assert "opset 18" in text
    assert "axes of any length: batch, height and width" in text
    method = SourcesPredictor.from_checkpoint(trained["sources"], device="cpu").segmenter.method
    for shape in ((1, 1, 32, 32), (5, 1, 48, 64)):
        image = torch.rand(shape)
        found = run_onnx(tmp_path / "out/model.onnx", image).softmax(1)
        torch.testing.assert_close(found, method.class_probabilities(image), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["mean_teacher", "mixed_teacher"])
def test_onnx_of_a_teacher_keeps_its_free_axes(method, tmp_path):
    """The mixed teacher has MixStyle in its networks, which predicts nothing of its own."""
    network = make(method).inference_network()
    written = onnx_export.write_onnx(network, (1, 32, 32), tmp_path / "model.onnx")
    assert written.free == "batch, height and width"


def test_onnx_of_a_few_shot_network_is_its_encoder(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "FREE", {"none": ()})
    text = card(trained["fewshot"], tmp_path / "out", "--onnx")
    assert "features of the encoder alone" in text
    encoder = FewShotPredictor.from_checkpoint(tmp_path / "out", device="cpu").segmenter.method.inference_network()
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(run_onnx(tmp_path / "out/model.onnx", image), encoder(image), atol=1e-4, rtol=1e-4)


def test_an_onnx_that_differs_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "FREE", {"none": ()})
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="differs from PyTorch by"):
        main([str(trained["dense"]), "--out", str(tmp_path / "out"), "--onnx"])
    assert not any(tmp_path.iterdir())


def test_missing_packages_are_named(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(ConfigError, match=r"needs onnxruntime, not installed.*requirements-onnx\.txt"):
        main([str(trained["dense"]), "--out", str(tmp_path / "out"), "--onnx"])
