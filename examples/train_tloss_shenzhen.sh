#!/usr/bin/env bash
# Trains T-Loss and the losses of its comparison on the Shenzhen chest films, for all noise settings and seeds.
# test_tloss_shenzhen.sh validates them.
#
#     bash examples/train_tloss_shenzhen.sh                                                    # the paper's grid, three seeds
#     METHODS="gce tloss" ALPHAS=0.7 BETAS=0.7 SEEDS=0 bash examples/train_tloss_shenzhen.sh
#
# Data: see data/SHENZHEN/README.md. All settings: see lib_noisy.sh. Run the same command to resume.
#
# Expected Dice x 100 (paper, table 2): T-Loss 94.8 at (0.3, 0.5), 87.0 at (0.7, 0.7); the others about 93.6 and 82.0.
# `python -m models.presets shenzhen` lists all expected scores.
set -euo pipefail

METHODS=${METHODS:-gce mae rce sce ngce nce_rce ngce_mae ngce_rce tloss}
# shellcheck source=examples/lib_noisy.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_noisy.sh"

make_noise shenzhen lung
for_each_run training.py shenzhen
