#!/usr/bin/env bash
# Learning from noisy masks without downloads: phantom skin images; in 70 % of the training masks, 70 % of the lesion area
# is wrong. Compares the class-weighted baseline with T-Loss, JoCoR and superpixel-guided learning, three seeds each.
# Creates the table in docs/performance.md. About 13 minutes on two cores; completed runs are reused.
#
#   OUT=study JOBS=2 examples/study_noisy_phantom.sh
#   METHODS="ce upper" OUT=study examples/study_noisy_phantom.sh     # adds rows to the same table
set -euo pipefail

OUT=${OUT:-study}
JOBS=${JOBS:-2}
METHODS=${METHODS:-baseline tloss jocor spguided}
SEEDS=${SEEDS:-0 1 2}
DATA_DIR=$OUT/data
LOG_DIR=$OUT/exps
# shellcheck source=examples/lib_noisy.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_noisy.sh"
export PYTHONWARNINGS="ignore:pkg_resources is deprecated"

run -P -m data.phantom isic2017 --out "$OUT/raw" --scans 200 --size-px 96 --jobs "$JOBS"
run -P -m data.prepare isic2017 --raw "$OUT/raw" --out "$DATA_DIR" --size-px 64 --jobs "$JOBS"
run -P -m data.noise isic2017 --alpha 0.7 --beta 0.7 --data-dir "$DATA_DIR" --size-px 64 --jobs "$JOBS" \
    --picture "$OUT/noise.png"
run -P -m data.superpixels isic2017 --data-dir "$DATA_DIR" --size-px 64 --jobs "$JOBS" \
    --picture "$OUT/superpixels.png"
for seed in $SEEDS; do
    for method in $METHODS; do
        settings=("$method" isic2017 noisy_small noise.alpha=0.7 noise.beta=0.7 "seed=$seed"
            "path.data_dir=$DATA_DIR" "path.log_dir=$LOG_DIR")
        run "$root/training.py" with "${settings[@]}"
        run "$root/validation.py" with "${settings[@]}"
    done
done
make_table
