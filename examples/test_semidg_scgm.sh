#!/usr/bin/env bash
# Validates the runs of train_semidg_scgm.sh with the same settings and collects all runs in LOG_DIR/table.md: the
# leave-one-domain-out table on SCGM (spinal cord grey matter, four sites).
#
#     bash examples/test_semidg_scgm.sh
#     METHODS="labelled_only cacps" bash examples/test_semidg_scgm.sh
#
# Data: see data/SCGM/README.md. All settings: see lib_semidg.sh. Run the same command to resume.
#
# Expected legacy Dice x 100 of CACPS with 20 % labels (released constants):
#            A      B      C      D      mean
#   20 %     87.13  87.31  78.75  91.70  86.22
set -euo pipefail

# shellcheck source=examples/lib_semidg.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_semidg.sh"

LABELS=${LABELS:-labels20}
for_each_target validation.py scgm
make_table
