#!/usr/bin/env bash
# Validates the runs of train_noisy_jsrt.sh with the same settings and collects all runs in LOG_DIR/table.md.
#
#     bash examples/test_noisy_jsrt.sh                                                    # the paper's grid, three seeds
#     METHODS="baseline spguided" ALPHAS=0.7 BETAS=0.7 SEEDS=0 bash examples/test_noisy_jsrt.sh
#
# Data: see data/JSRT/README.md. All settings: see lib_noisy.sh. Run the same command to resume.
#
# The results of the paper could not be verified.
set -euo pipefail

METHODS=${METHODS:-baseline upper coteaching jocor trinet spguided}
# shellcheck source=examples/lib_noisy.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_noisy.sh"

for structure in ${STRUCTURES:-lung heart clavicle}; do
    for_each_run validation.py "jsrt_$structure"
done
make_table
