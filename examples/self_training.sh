#!/usr/bin/env bash
# Self-training on unlabelled scans: label maps by propagation, a network that learns from them, label maps of that
# network, and so on. Can be run from any folder:
#
#   FOLDS="0 1 2 3 4" examples/self_training.sh                                 # CHAOST2, with scores
#   DATASET=my_set.json5 SCORE=0 SCANS=my_scans OUT=results examples/self_training.sh
#
# Settings are environment variables:
#   DATASET     CHAOST2   a built-in set, or a description; prepared, with one labelled scan or several
#   FOLDS       0         cross-validation folds
#   ROUNDS      2         networks that are trained one after the other
#   CHECKPOINT            trained few-shot network whose encoder propagates, in place of ImageNet weights
#   SCORE       1         1: score every network and the propagation on the held-out scans; 0: none is labelled
#   SCANS                 scans that the last network then segments, to OUT (default: segmentations)
#   EXTRA                 further settings of all trainings, such as "n_steps=300"
#   SEED, DATA_DIR, LOG_DIR, DEVICE, PYTHON, DRY_RUN: as in lib.sh
set -euo pipefail
# shellcheck source=examples/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

logs=${LOG_DIR:-$root/exps}

# step COMMAND METHOD WORD...: a command of this repository on the data of a fold.
step() {
    local file=$1 what=$2 method=$3
    # shellcheck disable=SC2086 # there may be no command
    run "$file" $what with "$method" "dataset=${DATASET:-CHAOST2}" label_sets=all "eval_fold=$fold" \
        "device=${DEVICE:-auto}" "path.data_dir=${DATA_DIR:-$root/data}" "path.log_dir=$logs" "${@:4}"
}

for fold in ${FOLDS:-0}; do
    propagation=(propagation ${CHECKPOINT:+"reload_model_path=$CHECKPOINT"})
    maps=$logs/label_maps/$(basename "${DATASET:-CHAOST2}" .json5)_fold${fold}_seed${SEED:-1234}_round
    step validation.py export "${propagation[@]}" "export_to=${maps}1"
    [[ ${SCORE:-1} == 0 ]] || step validation.py validate "${propagation[@]}"
    for ((round = 1; round <= ${ROUNDS:-2}; round++)); do
        # shellcheck disable=SC2206 # EXTRA may contain several settings
        words=(self_training "pseudo_labels=$maps$round" "seed=${SEED:-1234}" ${EXTRA:-})
        step training.py "" "${words[@]}"
        [[ ${SCORE:-1} == 0 ]] || step validation.py validate "${words[@]}"
        ((round == ${ROUNDS:-2})) || step validation.py export "${words[@]}" "export_to=$maps$((round + 1))"
    done
done

if [[ -n ${SCANS:-} ]]; then
    set +f
    # shellcheck disable=SC2012 # our own names
    newest=$(ls -t "$logs"/Self-training_*/checkpoint.pt 2>/dev/null | head -n 1) || true
    run frugalseg.py predict --checkpoint "${newest:-$logs/Self-training_.../checkpoint.pt}" --scans "$SCANS" \
        --out "${OUT:-segmentations}" --overlays
fi
