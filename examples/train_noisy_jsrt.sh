#!/usr/bin/env bash
# Trains superpixel-guided learning and its baselines on JSRT, one network per structure, for all noise settings and seeds.
# test_noisy_jsrt.sh validates them.
#
#     bash examples/train_noisy_jsrt.sh                                                    # the paper's grid, three seeds
#     METHODS="baseline spguided" ALPHAS=0.7 BETAS=0.7 SEEDS=0 bash examples/train_noisy_jsrt.sh
#
# Data: see data/JSRT/README.md. All settings: see lib_noisy.sh. Run the same command to resume.
#
# The results of the paper could not be verified.
set -euo pipefail

METHODS=${METHODS:-baseline upper coteaching jocor trinet spguided}
# shellcheck source=examples/lib_noisy.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_noisy.sh"

for structure in ${STRUCTURES:-lung heart clavicle}; do
    make_noise jsrt "$structure"
    for_each_run training.py "jsrt_$structure"
done
