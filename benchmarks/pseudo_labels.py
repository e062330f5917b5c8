"""Pseudo-labels of a folder of scans, including files and manifest, against bare scikit-image on as many cores.

python -m benchmarks.pseudo_labels --size 256 --slices 32 --scans 4 --jobs 2 --repeats 9
"""

import os
import tempfile
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.segmentation import felzenszwalb

from benchmarks.timing import HEADER, Comparison, compare, describe, parse
from data.superpixels.scans import write_pseudo_labels
from dataloaders.catalog import dataset
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.manifest import FILE_NAME

CHAOST2 = dataset("CHAOST2")


def scans_of(options: Namespace) -> list[np.ndarray]:
    """Smooth random fields with noise, bright enough to be all foreground."""
    generator = np.random.default_rng(0)
    shape = (options.slices, options.size, options.size)
    return [
        (300 + 900 * gaussian_filter(generator.normal(size=shape), (0, 12, 12)) * 12 + generator.normal(0, 10, shape))
        .clip(60)
        .astype(np.float32)
        for _ in range(options.scans)
    ]


def bare_slice(slice_: np.ndarray) -> int:
    """The call that makes up the work."""
    return int(felzenszwalb(slice_.astype(np.float64), scale=1, sigma=1, min_size=400).max())


def measure(options: Namespace) -> list[Comparison]:
    """Starts as many processes for both, so that their start-up time counts for both."""
    scans = scans_of(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, scan in enumerate(scans):
            write_nifti(folder / f"image_{number}.nii.gz", Volume(scan, np.eye(4)))

        def ours() -> None:
            (folder / FILE_NAME).unlink(missing_ok=True)
            write_pseudo_labels(folder, CHAOST2, jobs=options.jobs)

        def bare() -> None:
            with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
                list(pool.map(bare_slice, (slice_ for scan in scans for slice_ in scan), chunksize=32))

        slices = options.scans * options.slices
        return [
            compare(
                f"pseudo-labels of {slices} slices, {options.size} px, {options.jobs} processes",
                ours, "scikit-image alone, as many processes", bare, options,
            )
        ]  # fmt: skip


if __name__ == "__main__":
    given = parse(__doc__, size=256, slices=32, scans=4, jobs=os.cpu_count() or 1, repeats=9)
    print(describe(given), HEADER, *measure(given), sep="\n")
