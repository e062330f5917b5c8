"""Images and codes of masks: more classes than fit in one plane, and what is kept on a device."""

import numpy as np
import pytest
import torch

from dataloaders.ordering import LoaderOptions
from dataloaders.partial.data import LABELLED, PSEUDO, STRONG
from dataloaders.partial.pseudo import PseudoLabelFolder
from dataloaders.partial.store import MARKED, PER_PLANE, UNKNOWN, ArrayStore, PlacedStore
from tests.partial_sets import SIDE, open_scan_sets, open_sets, write_scan_sets, write_sets

N_CLASSES = 2 * PER_PLANE + 3


def store():
    rng = np.random.default_rng(0)
    masks = {2 * k: rng.choice([0, MARKED, UNKNOWN], (3, 5, 5)).astype(np.uint8) for k in range(N_CLASSES)}
    return ArrayStore(rng.integers(0, 65_536, (3, 5, 5, 1)).astype(np.uint16), masks)


def test_every_code_survives_packing_and_single_precision():
    own = store()
    where = np.array([2, 0])
    image, planes = own.images(where), own.planes(where)
    assert planes.shape == (2, 3, 5, 5)
    assert torch.equal(planes.float().to(planes.dtype), planes)
    marked, unknown = own.unpack(planes, 2 * N_CLASSES)
    for channel, mask in own.masks.items():
        assert np.array_equal(marked[:, channel].numpy(), mask[where] == MARKED)
        assert np.array_equal(unknown[:, channel].numpy(), mask[where] == UNKNOWN)
    assert not marked[:, 1::2].any()
    assert np.array_equal((image[:, 0] * 65_535).round().int().numpy(), own.image[where][..., 0])


def test_the_copy_on_a_device_gives_the_same():
    where = np.array([1, 2])
    mine, placed = store(), store().on(torch.device("cpu"))
    assert torch.equal(mine.images(where), placed.images(where))
    assert torch.equal(mine.planes(where), placed.planes(where))


def test_the_mean_column_of_what_is_marked():
    mask = np.zeros((40, 8, 8), np.uint8)
    mask[0, 1, 0] = mask[1, :, 6:] = mask[39, 0, [0, 7]] = MARKED
    mask[2] = UNKNOWN
    own = ArrayStore(np.zeros((40, 8, 8, 1), np.uint8), {0: np.ones_like(mask), 5: mask})
    for each in (own, own.on(torch.device("cpu"))):
        found = each.mean_columns(5)
        np.testing.assert_allclose(found[[0, 1, 39]], [0.5 / 8, 7 / 8, 0.5])
        assert np.isnan(found[2:39]).all()


def test_without_masks_nothing_is_marked():
    empty = ArrayStore(store().image, {})
    marked, unknown = empty.unpack(empty.planes(np.array([0])), 4)
    assert marked.shape == (1, 4, 5, 5)
    assert not marked.any()
    assert not unknown.any()


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Opens two training images of each of three sets, or all scans of two, with empty pseudo-labels."""
    root = tmp_path_factory.mktemp("sets")
    images, scans = write_sets(root / "images", n_train=2, n_test=1), write_scan_sets(root / "scans")
    opened = {"images": (open_sets, images), "scans": (open_scan_sets, scans)}
    for kind, (opens, place) in opened.items():
        data, folder = opens(place), PseudoLabelFolder(root / f"{kind} pseudo")
        names = {each.name: [n for k, n in enumerate(data.names) if k not in each.known] for each in data.trained}
        for each in data.trained:
            for image in each.training_images():
                empty = np.zeros((len(names[each.name]), SIDE, SIDE), bool)
                folder.write(each.name, image, names[each.name], empty, ~empty)
        found = {each.name: each.training_images() for each in data.trained}
        folder.finish("run", "recipe", data.config.task_list, found, names, {})
    return lambda kind, *needs: opened[kind][0](
        opened[kind][1], frozenset(needs), pseudo_labels=str(root / f"{kind} pseudo")
    )


def bytes_on_device(data):
    """Bytes of the tensors that all parts of a batch read: each tensor once, and as often as a part reads it."""
    loader = data.loader(data.fit_normalisation(), 0, 1, range(1), LoaderOptions(device=torch.device("cpu")))
    tensors = []
    for dataset in loader.dataset.datasets.values():
        for stream in dataset.streams:
            kept = stream.store
            is_placed = isinstance(kept, PlacedStore)
            tensors += (kept.image, kept.codes) if is_placed else (kept.slices.image, kept.slices.label)
            tensors += () if is_placed else kept.masks.values()
    once = {tensor.data_ptr(): tensor.nbytes for tensor in tensors}
    return sum(once.values()), sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize(
    ("kind", "needs", "per_pixel", "if_copied"),
    [
        ("images", (), 3 + 4, 3 + 4),
        ("images", (PSEUDO,), 3 + 4 + 4, 2 * (3 + 4)),
        ("images", (STRONG,), 3 + 4, 2 * 3 + 4),
        ("images", (PSEUDO, STRONG), 3 + 4 + 4, 3 * 3 + 4 + 4),
        ("scans", (STRONG,), 3, 2 * 3),
    ],
)
def test_all_parts_of_a_batch_share_the_images_on_a_device(labels, kind, needs, per_pixel, if_copied):
    """Bytes per pixel: three of an image, four of a plane of codes; two of a slice and one of its class value."""
    data = labels(kind, *needs)
    n_pixels = sum(len(each.training_images()) for each in data.trained) * SIDE**2
    once, in_all = bytes_on_device(data)
    assert once == data.nbytes == per_pixel * n_pixels
    assert in_all == if_copied * n_pixels  # what a copy for each part would take


def test_pseudo_labels_of_scans_are_counted_once_for_each_class(labels):
    """Two classes of the slices of one set, and one of the other's; a byte each."""
    data = labels("scans", PSEUDO)
    each = [len(one.training_images()) * SIDE**2 for one in data.trained]
    once, _ = bytes_on_device(data)
    assert once == data.nbytes == 3 * sum(each) + 2 * each[0] + each[1]
    assert data.nbytes > labels("scans").nbytes


def test_a_shared_image_is_read_by_all_parts(labels):
    for kind in ("images", "scans"):
        data = labels(kind, PSEUDO, STRONG)
        on_device = LoaderOptions(device=torch.device("cpu"))
        loaders = [data.loader(data.fit_normalisation(), 3, 1, range(2), o) for o in (LoaderOptions(), on_device)]
        for one, other in zip(*loaders, strict=True):
            for part in (LABELLED, PSEUDO, STRONG):
                assert torch.equal(one[part].image, other[part].image)
                assert torch.equal(one[part].label, other[part].label)
                assert torch.equal(one[part].valid, other[part].valid)
