import json

import numpy as np
import pytest
import torch

from dataloaders.images.labels import LabelStore, RefinedLabels, normalise
from util.errors import DataError

LABEL = np.array([[[0, 1, 1], [2, 0, 0]], [[1, 1, 0], [0, 0, 1]]], np.uint8)
CLEAN = np.array([[[0, 1, 2], [2, 1, 0]], [[1, 0, 0], [0, 0, 0]]], np.uint8)


def store(n_classes=3, **changes):
    generator = np.random.default_rng(0)
    values = {
        "image": generator.integers(0, 256, (2, 2, 3, 3), dtype=np.uint8),
        "label": LABEL,
        "clean": CLEAN,
        "superpixel": np.arange(12, dtype=np.uint16).reshape(2, 2, 3),
        "noise_types": ("dilate", "clean"),
        "n_classes": n_classes,
    }
    return LabelStore(**values | changes)


@pytest.mark.parametrize("chunk_size", [1, 64])
def test_clean_rates_by_hand(chunk_size):
    # Labelled 0: 6 pixels, 5 of them right (one is 1); 1: 5 and 2; 2: the only one right.
    rates = store(chunk_size=chunk_size).clean_rates()
    assert rates is not None
    assert rates.tolist() == pytest.approx([5 / 6, 2 / 5, 1.0])
    assert store(chunk_size=chunk_size).accuracy() == pytest.approx(8 / 12)


def test_a_class_that_no_pixel_bears_counts_as_clean():
    rates = store(n_classes=4).clean_rates()
    assert rates is not None
    assert rates[3] == 1


def test_without_clean_labels_nothing_is_claimed():
    assert store(clean=None).clean_rates() is None
    assert store(clean=None).accuracy() is None


def test_batches_are_normalised_and_typed():
    labels = store()
    batch = labels.batch(np.array([1, 0]))
    assert batch.image.shape == (2, 3, 2, 3)
    expected = labels.image[1].transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(batch.image[0], expected, atol=1e-6)
    assert batch.label.dtype == torch.int64
    assert batch.label.numpy().tolist() == LABEL[[1, 0]].tolist()
    assert batch.superpixel is not None
    assert batch.superpixel[0].flatten().tolist() == list(range(6, 12))
    assert store(superpixel=None).batch(slice(None)).superpixel is None


def test_colour_lies_about_zero_and_grey_above():
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 2, 1)
    assert normalise(black_and_white).flatten().tolist() == [0, 1]
    assert normalise(black_and_white.expand(1, 1, 2, 3))[0, 0].flatten().tolist() == [-1, 1]


def test_deep_images_are_scaled_by_their_own_range():
    deep = np.random.default_rng(1).integers(0, 65_536, (2, 2, 3, 3), dtype=np.uint16)
    deep[0, 0, 0], deep[0, 0, 1] = 65_535, 0
    labels = store(image=deep)
    image = labels.batch(slice(None)).image
    np.testing.assert_allclose(image, deep.transpose(0, 3, 1, 2) / 32_767.5 - 1, atol=1e-6)
    assert (float(image.max()), float(image.min())) == (1, -1)
    placed = labels.on(torch.device("cpu"))
    assert torch.equal(placed.batch(np.array([0, 1])).image, image)
    assert labels.nbytes == placed.image.nbytes + placed.label.nbytes + placed.superpixel.nbytes  # type: ignore[union-attr]
    assert store().nbytes == store().image.nbytes + LABEL.nbytes + 2 * store().superpixel.nbytes  # type: ignore[union-attr]


def test_chunks_cover_all_images_in_order():
    labels = store(image=np.repeat(store().image, 3, 0), label=np.repeat(LABEL, 3, 0), superpixel=None)
    where, batches = zip(*labels.chunks(4), strict=True)
    assert where == (slice(0, 4), slice(4, 6))
    assert torch.equal(torch.cat([b.label for b in batches]), labels.batch(slice(None)).label)


def test_replaced_labels_are_counted_and_the_given_ones_kept():
    labels = store()
    labels.replace(np.asarray(CLEAN))
    assert labels.n_replaced == 1
    assert labels.accuracy() == 1
    assert labels.batch(slice(None)).label.numpy().tolist() == CLEAN.tolist()
    assert labels.given.tolist() == LABEL.tolist()


@pytest.mark.parametrize("wrong", [CLEAN.astype(np.int64), CLEAN[:1]])
def test_labels_of_another_shape_or_type_are_refused(wrong):
    labels = store()
    with pytest.raises(ValueError, match=r"expected uint8 \(2, 2, 3\)"):
        labels.replace(wrong)
    assert labels.n_replaced == 0


@pytest.fixture
def refined(tmp_path):
    """Two generations of refined labels on disk."""
    refined, labels = RefinedLabels(tmp_path / "refined_labels", "spguided_seed1_abc"), store()
    for label in (CLEAN, 2 - CLEAN):
        labels.replace(label)
        refined.save(labels)
    return refined


def test_refined_labels_come_back_memory_mapped_and_none_is_overwritten(refined):
    for number, expected in ((1, CLEAN), (2, 2 - CLEAN), (1, CLEAN)):
        labels = store()
        refined.restore(labels, number)
        assert labels.label.tolist() == expected.tolist()
        assert isinstance(labels.label, np.memmap)
        assert labels.n_replaced == number
        assert labels.given.tolist() == LABEL.tolist()


def test_number_zero_are_the_given_labels(tmp_path):
    labels = store()
    RefinedLabels(tmp_path / "nowhere", "any").restore(labels, 0)
    assert labels.label is LABEL


def foreign(folder):
    note = json.loads((folder / "1.json").read_text())
    (folder / "1.json").write_text(json.dumps(note | {"experiment": "spguided_seed2_def"}))


def damaged(folder):
    content = bytearray((folder / "1.npy").read_bytes())
    content[-1] ^= 1
    (folder / "1.npy").write_bytes(bytes(content))


def gone(folder):
    (folder / "1.npy").unlink()


def without_note(folder):
    (folder / "1.json").unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (foreign, r"1\.npy: refined by the run 'spguided_seed2_def', not by 'spguided_seed1_abc'\. Delete"),
        (damaged, r"1\.npy: damaged.*Delete this run's folder and train again"),
        (gone, r"1\.npy: the refined labels of this run are missing.*restore the file"),
        (without_note, r"1\.npy: the refined labels of this run are missing"),
    ],
)
def test_labels_that_are_not_what_the_training_wrote_are_refused(refined, harm, message):
    harm(refined.folder)
    labels = store()
    with pytest.raises(DataError, match=message):
        refined.restore(labels, 1)
    assert labels.label is LABEL
    assert labels.n_replaced == 0


def test_refined_labels_for_other_images_are_refused(refined):
    fewer = store(image=store().image[:1], label=LABEL[:1], clean=CLEAN[:1], superpixel=None)
    with pytest.raises(DataError, match=r"labels of shape \(2, 2, 3\); expected \(1, 2, 3\): the prepared images have"):
        refined.restore(fewer, 2)
