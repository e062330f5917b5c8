#!/usr/bin/env bash
# Demo without data: generates a phantom in the raw CHAOS layout, preprocesses it, computes superpixels, trains a small
# ALPNet on these pseudo-labels, and compares it on the held-out scans with the untrained network and an intensity
# threshold. Prints a table of Dice scores. 3 to 6 minutes on two idle cores; existing results are reused.
#
#   OUT=demo JOBS=2 examples/demo.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
OUT=${OUT:-demo}
JOBS=${JOBS:-2}
SIZE=${SIZE:-128} # rows and columns
N_STEPS=${N_STEPS:-1500}
export PYTHONWARNINGS="ignore:pkg_resources is deprecated"

"$PYTHON" -m data.phantom chaost2 --out "$OUT/raw" --scans 8 --size-px "$SIZE" --jobs "$JOBS"
for step in convert normalise index; do
    "$PYTHON" -m data.prepare chaost2 --raw "$OUT/raw" --out "$OUT/data" --size-px "$SIZE" --jobs "$JOBS" --step "$step"
done
"$PYTHON" -m data.superpixels chaost2 --data-dir "$OUT/data" --scale SMALL --jobs "$JOBS"

# score NAME SETTING...: validates, unless this was already done since the last training.
score() {
    local marker="$OUT/.scored-$1" newest
    newest=$(find "$OUT/exps" -name checkpoint.pt -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
    if [[ $marker -nt $newest ]]; then
        echo "$1: already scored"
    else
        "$PYTHON" validation.py with "${@:2}"
        touch "$marker"
    fi
}

data=(chaost2 setting1 small label_sets=all superpix_scale=SMALL "n_steps=$N_STEPS" "path.data_dir=$OUT/data" "path.log_dir=$OUT/exps")
"$PYTHON" training.py with alpnet "${data[@]}"
score threshold threshold chaost2 setting1 label_sets=all "path.data_dir=$OUT/data" "path.log_dir=$OUT/exps"
score untrained alpnet "${data[@]}" reload_model_path=none
score trained alpnet "${data[@]}"
"$PYTHON" validation.py collect with "path.log_dir=$OUT/exps"

run=$(find "$OUT/exps" -path '*SSL-ALPNet*/validation/*/report.html' -printf '%T@ %h\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
printf '\noverlay: %s\nreport:  %s\nSacred run: %s\n' "$run/overlays/reference_scan_1.png" "$run/report.html" "$run"
