#!/usr/bin/env bash
# Validates the runs of train_tloss_isic.sh with the same settings and collects all runs in LOG_DIR/table.md.
#
#     bash examples/test_tloss_isic.sh                                                    # the paper's grid, three seeds
#     METHODS="gce tloss" ALPHAS=0.7 BETAS=0.7 SEEDS=0 bash examples/test_tloss_isic.sh
#
# Data: see data/ISIC2017/README.md. All settings: see lib_noisy.sh. Run the same command to resume.
#
# Expected Dice x 100 (paper, table 1): T-Loss 80.9 at (0.3, 0.5), 76.1 at (0.7, 0.7); the others about 80.4 and 69.3.
# `python -m models.presets isic2017` lists all expected scores.
set -euo pipefail

METHODS=${METHODS:-gce mae rce sce ngce nce_rce ngce_mae ngce_rce tloss}
# shellcheck source=examples/lib_noisy.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_noisy.sh"

for_each_run validation.py isic2017
make_table
