#!/usr/bin/env bash
# Trains superpixel-guided learning and its baselines on ISIC 2017, for all noise settings and seeds.
# test_noisy_isic.sh validates them.
#
#     bash examples/train_noisy_isic.sh                                                    # the paper's grid, three seeds
#     METHODS="baseline spguided" ALPHAS=0.7 BETAS=0.7 SEEDS=0 bash examples/train_noisy_isic.sh
#
# Data: see data/ISIC2017/README.md. All settings: see lib_noisy.sh. Run the same command to resume.
#
# The results of the paper could not be verified. The T-Loss paper reports 76.1 for T-Loss at (0.7, 0.7) and states
# that this method performs better.
set -euo pipefail

METHODS=${METHODS:-baseline upper coteaching jocor trinet spguided}
# shellcheck source=examples/lib_noisy.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_noisy.sh"

make_noise isic2017 lesion
for_each_run training.py isic2017
