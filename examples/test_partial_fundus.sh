#!/usr/bin/env bash
# Validates the runs of train_partial_fundus.sh with the same settings on all six sets that have test images, and collects
# all runs in LOG_DIR/table.md.
#
#     bash examples/test_partial_fundus.sh
#     METHODS="experts naive generator pseudo adversarial pssnet teacher" SEEDS="0 1 2" bash examples/test_partial_fundus.sh
#
# Data: see data/RETA/README.md and its neighbours. All settings: see lib_partial.sh. Run the same command to resume.
# The article's tables could not be obtained, so no score is expected.
set -euo pipefail

# shellcheck source=examples/lib_partial.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_partial.sh"

for_each_method validation.py
make_table
