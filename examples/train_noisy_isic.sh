#!/usr/bin/env bash
# Superpixel-guided learning and its baselines on ISIC 2017: trains every method for every noise and seed.
# test_noisy_isic.sh scores them.
#
#     bash examples/train_noisy_isic.sh                                                    # the paper's grid, three seeds
#     METHODS="baseline spguided" ALPHAS=0.7 BETAS=0.7 SEEDS=0 bash examples/train_noisy_isic.sh
#
# Data: see data/ISIC2017/README.md. All settings: see lib_noisy.sh. A stopped run goes on with the same command.
#
# No figure of the paper could be verified; T-Loss reports 76.1 for itself at (0.7, 0.7) and concedes that this
# method is better.
set -euo pipefail

METHODS=${METHODS:-baseline upper coteaching jocor trinet spguided}
# shellcheck source=examples/lib_noisy.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_noisy.sh"

make_noise isic2017 lesion
for_each_run training.py isic2017
