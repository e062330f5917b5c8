#!/usr/bin/env bash
# Trains CACPS on M&Ms (cardiac cine MR, four vendors) with each domain held out in turn;
# test_semidg_mms.sh validates.
#
#     bash examples/train_semidg_mms.sh
#     LABELS="labels2 labels5 labels100" bash examples/train_semidg_mms.sh
#
# Data: see data/MMS/README.md. All settings: see lib_semidg.sh. Run the same command to resume.
#
# Expected legacy Dice x 100 of CACPS (paper, mean over patients):
#            A      B      C      D      mean
#   2 %      82.35  82.84  86.31  86.58  84.52
#   5 %      83.30  85.04  87.14  87.38  85.72
set -euo pipefail

# shellcheck source=examples/lib_semidg.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_semidg.sh"

LABELS=${LABELS:-labels2}
for_each_target training.py mms
