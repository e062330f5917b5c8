#!/usr/bin/env bash
# Scores what train_noisy_isic.sh trained with the same settings, and gathers all runs in LOG_DIR/table.md.
#
#     bash examples/test_noisy_isic.sh                                                    # the paper's grid, three seeds
#     METHODS="baseline spguided" ALPHAS=0.7 BETAS=0.7 SEEDS=0 bash examples/test_noisy_isic.sh
#
# Data: see data/ISIC2017/README.md. All settings: see lib_noisy.sh. A stopped run goes on with the same command.
#
# No figure of the paper could be verified; T-Loss reports 76.1 for itself at (0.7, 0.7) and concedes that this
# method is better.
set -euo pipefail

METHODS=${METHODS:-baseline upper coteaching jocor trinet spguided}
# shellcheck source=examples/lib_noisy.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_noisy.sh"

for_each_run validation.py isic2017
make_table
