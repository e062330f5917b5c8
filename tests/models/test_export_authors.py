"""Networks of the authors of superpixel-guided learning and T-Loss, exported for prediction."""

import numpy as np
import pytest
import torch

from models.export.__main__ import main
from models.predict import DensePredictor
from tests.models.export_helpers import write_checkpoint
from tests.models.networks.test_generic_unet import trained
from util.errors import CheckpointError, ConfigError
from util.runtime import checkpoint

SIZE = 64
NEEDED = ("--dataset", "isic2017", "--loss", "tloss", "--size-px", str(SIZE))


@pytest.fixture(scope="module")
def theirs():
    return trained(features=(4, 8, 8, 8, 8), strides=((2, 2),) * 4)


@pytest.fixture
def file(theirs, tmp_path):
    """As T-Loss's authors store it."""
    checkpoint.save(tmp_path / "ISIC_checkpoint_last.pth", {"net": theirs.state_dict(), "optimizer": {"state": {}}})
    return tmp_path / "ISIC_checkpoint_last.pth"


def export(file, *words):
    out = file.with_name("out")
    main([str(file), "--out", str(out), *words])
    return out


def test_it_predicts_as_in_its_own_program(theirs, file):
    out = export(file, *NEEDED)
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    with torch.no_grad():
        logits = theirs(torch.from_numpy(image / 127.5 - 1).float().movedim(2, 0)[None])[0]
    expected = logits.softmax(0)[1].numpy()
    found = DensePredictor.from_checkpoint(out, device="cpu").predict(image)
    np.testing.assert_allclose(found.probabilities["lesion"] / 65_535, expected, atol=1e-4)
    assert "# T-Loss, trained on ISIC2017" in (out / "MODEL_CARD.md").read_text()


def test_a_state_dict_alone_is_taken_and_exported_again(theirs, tmp_path):
    checkpoint.save(tmp_path / "model.pth", dict(theirs.state_dict()))  # superpixel-guided learning
    out = export(tmp_path / "model.pth", "--dataset", "isic2017", "--loss", "ce", "--size-px", str(SIZE))
    main([str(out), "--out", str(tmp_path / "again")])
    first, second = (DensePredictor.from_checkpoint(each, device="cpu") for each in (out, tmp_path / "again"))
    image = np.full((SIZE, SIZE, 3), 90, np.uint8)
    found = first.predict(image).probabilities["lesion"]
    np.testing.assert_array_equal(found, second.predict(image).probabilities["lesion"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (NEEDED[2:], "name it with --dataset"),
        (("--dataset", "isic2017"), "does not contain the loss of its training; add --loss"),
        (NEEDED[:4], r"halves rows and columns \(4, 4\) times; images of ISIC2017, lesion, of \d+ x \d+ pixels need 3"),
        ((*NEEDED, "--structures", "heart"), "--structures heart: expected some of lesion"),
    ],
)
def test_what_the_file_does_not_say_is_asked_for(file, words, message):
    with pytest.raises(ConfigError, match=message):
        export(file, *words)
    assert not file.with_name("out").exists()


def test_what_cannot_be_is_refused(theirs, file, tmp_path):
    with pytest.raises(CheckpointError, match="contains no averaged weights; use --weights last"):
        export(file, *NEEDED, "--weights", "ema")
    with pytest.raises(CheckpointError, match=r"a U-Net of the authors of .* `frugalseg export FILE --data"):
        DensePredictor.from_checkpoint(file, device="cpu")
    state = {name: value for name, value in theirs.state_dict().items() if "seg_outputs.3" not in name}
    checkpoint.save(tmp_path / "cut.pth", state)
    with pytest.raises(CheckpointError, match=r"cut\.pth: a U-Net without 'seg_outputs\.3\.weight'"):
        export(tmp_path / "cut.pth", *NEEDED)
    with pytest.raises(ConfigError, match="contains what it was trained with; leave --loss, --structures"):
        export(write_checkpoint(tmp_path, "dense"), "--loss", "ce")
