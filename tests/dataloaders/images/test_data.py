import dataclasses
import re
import shlex

import numpy as np
import pytest
import torch

from data.noise.__main__ import main as make_noise
from data.superpixels.__main__ import main as make_superpixels
from dataloaders.images import data as dense
from dataloaders.images.config import DenseConfig
from dataloaders.images.data import DenseData, open_dense
from dataloaders.images.folder import NoiseConfig, SuperpixelConfig
from dataloaders.io.png import read_image, read_mask, read_superpixels, write_png
from dataloaders.ordering import LoaderOptions
from dataloaders.scans.normalise import Normalisation
from util.csv_files import read_csv
from util.errors import ConfigError, DataError
from util.runtime.distributed import Plan

NOISE, SUPERPIXEL = NoiseConfig(0.7, 0.7), SuperpixelConfig(n_segments=24)
LESION = DenseConfig(size_px=32, noise=NOISE, superpixel=SUPERPIXEL)
TRAIN, TEST = [f"img_{n:02}" for n in range(12)], [f"img_{n:02}" for n in range(12, 16)]


def chest(*structures, **more):
    return DenseConfig("JSRT", structures, size_px=32, superpixel=SUPERPIXEL, **more)


def batches(data: DenseData, steps, batch_size=3, workers=0, rank=0, world_size=1, seed=5):
    options = LoaderOptions(workers, Plan(rank, world_size, rank))
    return list(data.loader(Normalisation(), seed, batch_size, steps, options))


def assert_equal(one, other):
    for name in ("image", "label", "superpixel"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.fixture(scope="module")
def data(image_folder):
    return open_dense(LESION, str(image_folder), needs=frozenset({"superpixels"}))


@pytest.fixture(scope="module")
def steps(data):
    """The first six batches."""
    return batches(data, range(6))


def test_batches_are_the_same_for_any_number_of_workers(data, steps):
    for one, other in zip(steps, batches(data, range(6), workers=2), strict=True):
        assert_equal(one, other)


def test_a_late_start_goes_on_with_the_same_batches(data, steps):
    for one, other in zip(steps[4:], batches(data, range(4, 6)), strict=True):
        assert_equal(one, other)


def test_two_processes_see_together_what_one_would_with_twice_the_batch(data):
    double = batches(data, range(3), batch_size=4)
    ranks = [batches(data, range(3), batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    for whole, first, second in zip(double, *ranks, strict=True):
        for name in ("image", "label", "superpixel"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(first, name), getattr(second, name)]))


def test_another_seed_gives_other_batches(data, steps):
    assert not torch.equal(steps[0].image, batches(data, range(1), seed=6)[0].image)


def test_a_pass_shows_every_training_image_once(image_folder):
    plain = open_dense(DenseConfig(size_px=32, which_aug="none"), str(image_folder))
    shown = torch.cat([batch.image for batch in batches(plain, range(4))])
    stored = plain.labels.batch(slice(None)).image
    order = [int((stored == image).flatten(1).all(1).nonzero()) for image in shown]
    assert sorted(order) == list(range(12))
    assert order != list(range(12))


def pairs(label, superpixel):
    return set(zip(label.flatten().tolist(), superpixel.flatten().tolist(), strict=True))


def test_augmentation_moves_labels_and_superpixels_together(data, steps):
    """Which classes meet which superpixels in an augmented image, they do in one of the stored images."""
    plain = data.labels.batch(slice(None))
    stored = [pairs(*maps) for maps in zip(plain.label, plain.superpixel, strict=True)]
    moved = [pairs(*maps) for batch in steps for maps in zip(batch.label, batch.superpixel, strict=True)]
    assert all(any(mine <= theirs for theirs in stored) for mine in moved)
    assert any(not torch.equal(steps[0].image[0], image) for image in plain.image)


def test_a_new_loader_reads_the_labels_as_they_are_then(image_folder):
    data = open_dense(DenseConfig(size_px=32, noise=NOISE, which_aug="none"), str(image_folder))
    data.labels.replace(np.full_like(data.labels.label, 1))
    for workers in (0, 1):
        assert batches(data, range(1), workers=workers)[0].label.min() == 1


def test_given_labels_are_noisy_and_clean_ones_the_experts(data, image_folder):
    labels = data.labels
    for n, image_id in enumerate(TRAIN):
        noisy = read_mask(image_folder / "noisy/lesion/a0.7_b0.7" / f"{image_id}.png")
        clean = read_mask(image_folder / "masks/lesion" / f"{image_id}.png")
        ids = read_superpixels(next(image_folder.glob("superpixels/*")) / f"{image_id}.png")
        assert np.array_equal(labels.image[n], read_image(image_folder / "images" / f"{image_id}.png"))
        assert np.array_equal(labels.label[n], noisy)
        assert np.array_equal(labels.clean[n], clean)
        assert np.array_equal(labels.superpixel[n], ids)
        assert (labels.noise_types[n] == "clean") == np.array_equal(noisy, clean)
    rows = read_csv(image_folder / "noisy/lesion/a0.7_b0.7/noise.csv", ("type",))
    assert labels.noise_types == tuple(row["type"] for row in rows)
    assert labels.n_classes == 2


@pytest.mark.parametrize("trains_on", ["clean", "given"])
def test_clean_labels_need_no_noise(make_image_folder, tmp_path, trains_on):
    folder = make_image_folder(tmp_path, n_train=2, n_test=1, noise=None, superpixel=None)
    config = DenseConfig(size_px=32, noise=NOISE if trains_on == "clean" else NoiseConfig())
    labels = open_dense(config, str(folder), trains_on).labels
    assert labels.label is labels.clean
    assert labels.noise_types == ("clean", "clean")
    assert labels.superpixel is None


def test_a_structure_alone_is_seen_in_its_own_window(chest_folder):
    data = open_dense(chest("clavicle", noise=NOISE), str(chest_folder), needs=frozenset({"superpixels"}))
    rows, columns = slice(0, 12), slice(3, 31)  # 96, 24 and 248 of 256
    assert data.config.window == (rows, columns)
    labels = data.labels
    assert labels.image.shape == (12, 12, 28, 1)
    read = read_image(chest_folder / "images/img_03.png")[rows, columns]
    assert np.array_equal(labels.image[3, ..., 0], read)
    noisy = read_mask(chest_folder / "noisy/clavicle/a0.7_b0.7/img_03.png")[rows, columns]
    assert np.array_equal(labels.label[3], noisy)
    assert labels.superpixel is not None
    assert labels.superpixel.shape == labels.label.shape
    case, truth = next(data.cases())
    assert case.image.shape == (4, 1, 12, 28)
    assert np.array_equal(truth[0, 1], read_mask(chest_folder / "masks/clavicle/img_13.png")[rows, columns])
    full = data.in_full(np.ones((12, 28), np.uint16))
    assert full.shape == (32, 32)
    assert (full[rows, columns] == 1).all()
    assert full.sum() == 12 * 28


def test_several_structures_are_painted_over_one_another_on_the_whole_image(chest_folder):
    data = open_dense(chest("heart", "lung", "clavicle"), str(chest_folder))
    labels = data.labels
    heart, lung, clavicle = (
        read_mask(chest_folder / "masks" / name / "img_05.png") for name in ("heart", "lung", "clavicle")
    )
    assert (heart & lung).any()
    expected = np.where(clavicle, 3, np.where(lung, 2, np.where(heart, 1, 0)))
    assert np.array_equal(labels.label[5], expected)
    assert labels.n_classes == 4
    case, truth = next(data.cases())
    assert case.classes == (1, 2, 3)
    assert truth.shape == (3, 4, 32, 32)
    assert np.array_equal(truth[1, 0], read_mask(chest_folder / "masks/lung/img_12.png"))  # whole, overlaps and all


def test_the_first_structure_is_meant_where_none_is_named(chest_folder):
    assert open_dense(DenseConfig("JSRT", size_px=32), str(chest_folder)).config.chosen == ("lung",)


def test_test_images_come_some_at_a_time(image_folder):
    data = open_dense(DenseConfig(size_px=32, test_batch=3), str(image_folder))
    cases = list(data.cases())
    assert [case.ids for case, _ in cases] == [tuple(TEST[:3]), tuple(TEST[3:])]
    for case, truth in cases:
        for n, image_id in enumerate(case.ids):
            stored = read_image(image_folder / "images" / f"{image_id}.png").transpose(2, 0, 1)
            np.testing.assert_allclose(case.image[n], stored / 127.5 - 1, atol=1e-6)
            assert np.array_equal(truth[0, n], read_mask(image_folder / "masks/lesion" / f"{image_id}.png"))


def test_arrays_are_memory_mapped_and_files_are_opened_once(image_folder, monkeypatch):
    def labels():
        return open_dense(LESION, str(image_folder), needs=frozenset({"superpixels"})).labels

    first = labels()
    monkeypatch.setattr(dense, "read_image", None)  # whoever reads a file again, fails
    monkeypatch.setattr(dense, "read_mask", None)
    monkeypatch.setattr(dense, "read_superpixels", None)
    again = labels()
    for name in ("image", "label", "clean", "superpixel"):
        array = getattr(again, name)
        assert isinstance(array, np.memmap), name
        assert not array.flags.owndata
        assert np.array_equal(array, getattr(first, name))


@pytest.fixture
def bare(make_image_folder, tmp_path):
    """A folder without noise and superpixels."""
    return make_image_folder(tmp_path, n_train=4, n_test=1, noise=None, superpixel=None)


def command_in(error):
    """The arguments of the command that a message names."""
    found = re.search(r"`frugalseg (\w+) (.*?)`", str(error.value))
    assert found, error.value
    return found[1], shlex.split(found[2])


@pytest.mark.parametrize(
    "config",
    [
        NoiseConfig(0.5, 0.7),
        NoiseConfig(1.0, 0.55, types=("erode", "dilate"), direction="uniform8", variant="per_image", seed=3),
    ],
)
def test_missing_noise_is_made_by_the_command_in_the_message(bare, config):
    data = open_dense(DenseConfig(size_px=32, noise=config), str(bare))
    with pytest.raises(DataError, match=re.escape(f"noisy/lesion/{config.name}: missing, or not finished.")) as error:
        _ = data.labels
    module, arguments = command_in(error)
    assert module == "noise"
    make_noise(arguments)
    assert data.labels.label.shape == (4, 32, 32)


@pytest.mark.parametrize("config", [SUPERPIXEL, SuperpixelConfig("rgb", 12, 5.5, equalised=True)])
def test_missing_superpixels_are_made_by_the_command_in_the_message(bare, config):
    data = open_dense(DenseConfig(size_px=32, superpixel=config), str(bare), needs=frozenset({"superpixels"}))
    with pytest.raises(DataError, match=r"superpixels/rgb_.*: missing, or not finished\.") as error:
        _ = data.labels
    module, arguments = command_in(error)
    assert module == "superpixels"
    make_superpixels(arguments)
    assert data.labels.superpixel is not None


def test_half_made_noise_does_not_count(make_image_folder, tmp_path):
    folder = make_image_folder(tmp_path, n_train=4, n_test=1, superpixel=None)
    (folder / "noisy/lesion/a0.7_b0.7/noise.json").unlink()
    with pytest.raises(DataError, match=r"a0\.7_b0\.7: missing, or not finished"):
        _ = open_dense(LESION, str(folder)).labels


def test_noise_of_other_images_is_told(make_image_folder, tmp_path):
    folder = make_image_folder(tmp_path, n_train=4, n_test=1, superpixel=None)
    table = folder / "noisy/lesion/a0.7_b0.7/noise.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith("img_02")))
    with pytest.raises(DataError, match=r"noise\.csv: no line for training image img_02 \(1 such\).*Delete the folder"):
        _ = open_dense(LESION, str(folder)).labels


def test_a_missing_mask_is_named(bare):
    (bare / "masks/lesion/img_04.png").unlink()
    data = open_dense(DenseConfig(size_px=32), str(bare))
    assert len(data.labels) == 4  # training images have theirs
    with pytest.raises(DataError, match=r"masks/lesion/img_04\.png: no such file"):
        next(data.cases())


def test_images_of_another_size_are_told(bare):
    with pytest.raises(DataError, match=r"\(32, 32, 3\); expected \(128, 128, 3\)\. Set size_px"):
        _ = open_dense(DenseConfig(), str(bare)).labels


def test_an_image_unlike_the_others_is_named(bare):
    write_png(bare / "images/img_02.png", np.zeros((32, 32), np.uint8))
    with pytest.raises(DataError, match=r"img_02\.png: uint8 of shape \(32, 32, 1\); expected .*\(32, 32, 3\)"):
        _ = open_dense(DenseConfig(size_px=32), str(bare)).labels


@pytest.mark.parametrize(("split", "use"), [("train", lambda d: d.labels), ("test", lambda d: next(d.cases()))])
def test_a_split_without_images_is_named(bare, split, use):
    text = (bare / "manifest.csv").read_text()
    (bare / "manifest.csv").write_text(text.replace(f",{split}", ",unused"))
    with pytest.raises(DataError, match=rf"manifest\.csv: no image in split '{split}'.*--split"):
        use(open_dense(DenseConfig(size_px=32), str(bare)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"dataset": "ISIC2018"},
            "dataset='ISIC2018': unknown data set; expected one of ARIA, DDR, DRIVE, IDRiD, ISIC2017, JSRT",
        ),
        ({"structures": ("heart",)}, "structure 'heart': unknown in ISIC2017; expected one of lesion"),
        ({"structures": ("lesion", "lesion")}, "expected different ones"),
        ({"which_aug": "nnunet90"}, "which_aug='nnunet90': expected one of nnunet, nnunet180"),
        ({"size_px": 8}, "size_px=8: expected 16 or more"),
        ({"diagnosed_images": -1}, "diagnosed_images from 0"),
        ({"test_batch": 0}, "test_batch from 1"),
    ],
)
def test_a_bad_configuration_is_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        DenseConfig(**wrong)


def test_suspect_masks_are_not_taken_for_clean_ones(image_folder, monkeypatch):
    trusted = open_dense(DenseConfig(size_px=32), str(image_folder)).labels
    spec = dataclasses.replace(DenseConfig().spec, masks="suspect")
    monkeypatch.setattr(DenseConfig, "spec", spec)
    labels = open_dense(DenseConfig(size_px=32), str(image_folder)).labels
    assert trusted.clean is not None
    assert labels.clean is None
    assert np.array_equal(labels.label, trusted.label)
