#!/usr/bin/env bash
# Trains T-Loss and the losses of its comparison on ISIC 2017, for all noise settings and seeds.
# test_tloss_isic.sh validates them.
#
#     bash examples/train_tloss_isic.sh                                                    # the paper's grid, three seeds
#     METHODS="gce tloss" ALPHAS=0.7 BETAS=0.7 SEEDS=0 bash examples/train_tloss_isic.sh
#
# Data: see data/ISIC2017/README.md. All settings: see lib_noisy.sh. Run the same command to resume.
#
# Expected Dice x 100 (paper, table 1): T-Loss 80.9 at (0.3, 0.5), 76.1 at (0.7, 0.7); the others about 80.4 and 69.3.
# `python -m models.presets isic2017` lists all expected scores.
set -euo pipefail

METHODS=${METHODS:-gce mae rce sce ngce nce_rce ngce_mae ngce_rce tloss}
# shellcheck source=examples/lib_noisy.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_noisy.sh"

make_noise isic2017 lesion 256
for_each_run training.py isic2017
