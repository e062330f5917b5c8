"""All benchmarks with the settings of docs/performance.md, as one table; `--modelname resnet18` for a quick run.

python -m benchmarks.all --modelname dlfcn_res101 --repeats 15
"""

import os
from argparse import Namespace

from benchmarks import (
    cacps_step,
    dense_step,
    fourier_mix,
    noisy_labels,
    partial_step,
    propagation_scan,
    pseudo_labels,
    training_step,
    validation_scan,
)
from benchmarks.timing import HEADER, describe, parse


def main() -> None:
    """Prints the table, each line as soon as it is measured."""
    given = parse(__doc__, modelname="dlfcn_res101", size=256, repeats=15)
    print(describe(given), HEADER, sep="\n", flush=True)
    shared = vars(given)
    for benchmark, options in (
        (training_step, {"episodes": 1}),
        (training_step, {"episodes": 2}),
        (validation_scan, {"slices": 34}),
        (propagation_scan, {"encoder": "efficientnet_lite0", "slices": 36}),
        (pseudo_labels, {"slices": 32, "scans": 4, "jobs": os.cpu_count() or 1}),
        (dense_step, {"size": 128, "batch": 8, "base_features": 32}),
        (noisy_labels, {}),
        (fourier_mix, {"size": 288, "batch": 32}),
        (cacps_step, {"encoder": "resnet50s", "size": 192, "batch": 2}),
        (partial_step, {"encoder": "swin_tiny_patch4_window7_224", "channels": 128, "size": 128, "batch": 1}),
    ):
        print(*benchmark.measure(Namespace(**shared | options)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
