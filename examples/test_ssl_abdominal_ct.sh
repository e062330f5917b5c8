#!/usr/bin/env bash
# Scores what train_ssl_abdominal_ct.sh trained with the same settings, and gathers all folds in LOG_DIR/table.md.
#
#     bash examples/test_ssl_abdominal_ct.sh                                          # fold 0, kidneys, setting 2
#     LABEL_SETS="0 1" FOLDS="0 1 2 3 4" bash examples/test_ssl_abdominal_ct.sh       # the paper's setting 2
#     SETTING=1 FOLDS="0 1 2 3 4" bash examples/test_ssl_abdominal_ct.sh              # the paper's setting 1
#
# Takes minutes. Each fold leaves scores, pictures, masks and report.html below LOG_DIR. All settings: see lib.sh.
#
# Expected Dice x 100 (paper, means over five folds; on a single fold, runs of the published code differ by 3 to 5):
#                left kidney  right kidney  spleen  liver   mean
#   setting 1    72.36        71.81         70.96   78.29   73.35
#   setting 2    63.34        54.82         60.25   73.65   63.02
set -euo pipefail

# shellcheck source=examples/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for_each_fold validation.py sabs
make_table sabs
