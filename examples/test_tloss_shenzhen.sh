#!/usr/bin/env bash
# Validates the runs of train_tloss_shenzhen.sh with the same settings and collects all runs in LOG_DIR/table.md.
#
#     bash examples/test_tloss_shenzhen.sh                                                    # the paper's grid, three seeds
#     METHODS="gce tloss" ALPHAS=0.7 BETAS=0.7 SEEDS=0 bash examples/test_tloss_shenzhen.sh
#
# Data: see data/SHENZHEN/README.md. All settings: see lib_noisy.sh. Run the same command to resume.
#
# Expected Dice x 100 (paper, table 2): T-Loss 94.8 at (0.3, 0.5), 87.0 at (0.7, 0.7); the others about 93.6 and 82.0.
# `python -m models.presets shenzhen` lists all expected scores.
set -euo pipefail

METHODS=${METHODS:-gce mae rce sce ngce nce_rce ngce_mae ngce_rce tloss}
# shellcheck source=examples/lib_noisy.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_noisy.sh"

for_each_run validation.py shenzhen
make_table
