"""A training step of every dense method, including its data, against bare passes of its networks.

python -m benchmarks.dense_step --size 128 --batch 8 --repeats 15
"""

from argparse import Namespace
from functools import partial
from itertools import count

import numpy as np

from benchmarks.timing import HEADER, Comparison, compare, describe, parse
from benchmarks.trainee import Trainee
from dataloaders.images.data import DenseDataset
from dataloaders.images.labels import LabelStore
from dataloaders.ordering import LoaderOptions
from dataloaders.transforms.dense import DENSE_PRESETS
from models.networks.unet import UNet

METHODS = {
    "cross-entropy": {"method": "supervised", "loss": "ce"},
    "T-Loss": {"method": "supervised", "loss": "tloss"},
    "co-teaching": {"method": "coteaching"},
    "JoCoR": {"method": "jocor"},
    "tri-network": {"method": "trinet"},
    "superpixel-guided": {"method": "spguided"},
}
N_IMAGES = 64


def label_store(size: int) -> LabelStore:
    """Noise images with a square lesion each and a chequerboard of 100 superpixels."""
    generator = np.random.default_rng(0)
    label = np.zeros((N_IMAGES, size, size), np.uint8)
    label[:, size // 4 : size // 2, size // 4 : size // 2] = 1
    cells = np.arange(size) * 10 // size
    superpixel = np.broadcast_to(cells[:, None] * 10 + cells, label.shape).astype(np.uint16)
    image = generator.integers(0, 256, (N_IMAGES, size, size, 3), np.uint8)
    return LabelStore(image, label, None, superpixel, ("clean",) * N_IMAGES, n_classes=2)


def measure(options: Namespace) -> list[Comparison]:
    """Each method's step with its data, the preparation of a batch, and one step of two networks against two of one."""
    store = label_store(options.size)
    data = store if options.device.type == "cpu" else store.on(options.device)
    batches, number = DenseDataset(data, DENSE_PRESETS["nnunet"], 0, options.batch, LoaderOptions()), count()
    image = batches[0].image.to(options.device)
    label = f"{options.batch} x {options.size} px"

    def step(trainee: Trainee) -> None:
        trainee.step(batches[next(number)])

    def trainee_of(settings: dict[str, str]) -> Trainee:
        return Trainee(settings | {"unet": {"base_features": options.base_features}}, UNet, options)

    def compared(name: str, settings: dict[str, str]) -> Comparison:
        trainee = trainee_of(settings)
        yardstick = f"{len(trainee.networks)} U-Net(s) forward + backward"
        bare = partial(trainee.bare, image)
        return compare(f"{name} step, {label}", partial(step, trainee), yardstick, bare, options, is_network=True)

    found = [compared(name, settings) for name, settings in METHODS.items()]
    plain, guided = trainee_of(METHODS["cross-entropy"]), trainee_of(METHODS["superpixel-guided"])

    def two_plain_steps() -> None:
        step(plain)
        step(plain)

    one, two = f"superpixel-guided step, {label}", "2 cross-entropy steps"
    found.append(compare(one, partial(step, guided), two, two_plain_steps, options))
    name, yardstick = f"batch preparation, {label}", "1 U-Net(s) forward + backward"
    found.append(compare(name, lambda: batches[next(number)], yardstick, partial(plain.bare, image), options))
    return found


if __name__ == "__main__":
    given = parse(__doc__, size=128, batch=8, base_features=32, repeats=15)
    print(describe(given), HEADER, *measure(given), sep="\n")
