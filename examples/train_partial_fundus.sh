#!/usr/bin/env bash
# Trains PSSNet on three sets of fundus photographs, of which each is annotated for one task: vessels (RETA), lesions
# (DDR), optic disc and cup (REFUGE). Stage 1, its pseudo-labels, and stage 2; test_partial_fundus.sh validates.
#
#     bash examples/train_partial_fundus.sh
#     METHODS="experts naive generator pseudo adversarial pssnet teacher" SEEDS="0 1 2" bash examples/train_partial_fundus.sh
#
# Data: see data/RETA/README.md and its neighbours. All settings: see lib_partial.sh. Run the same command to resume.
# The article's tables could not be obtained, so no score is expected.
set -euo pipefail

# shellcheck source=examples/lib_partial.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_partial.sh"

for_each_method training.py
