# shellcheck shell=bash
# Shared by the SSL-ALPNet scripts in this folder: settings, and the loop over label groups and folds. Sourced, not run.
#
# Settings are environment variables; the defaults are those of the paper:
#   SETTING      2      of the paper. 1: all training slices; 2: slices that contain a test organ are excluded
#   LABEL_SETS   0      label groups, one run each. 0 tests the kidneys, 1 liver and spleen, "all" all four organs.
#                       Default with SETTING=1: all, because one run serves all organs
#   FOLDS        0      cross-validation folds; "0 1 2 3 4" for results comparable with the paper
#   EXCLUDE             classes whose slices are excluded, e.g. "[2,3]", instead of those given by SETTING
#   N_STEPS      100100
#   SCALE        MIDDLE superpixels: SMALL, MIDDLE, SLIC or SUPERVOXEL
#   SEED         1234
#   DATA_DIR            data root or prepared folder (default: data of this repository)
#   LOG_DIR             results (default: exps of this repository)
#   NUM_WORKERS  4      DataLoader workers
#   DEVICE       auto   auto, cpu or cuda (NVIDIA and AMD)
#   EXTRA               further settings for `training.py with`: "batch_size=4 optim.lr=0.002", or "ssl_panet"
#   PYTHON              interpreter (default: .venv/bin/python of this repository if it exists, else python3)
#   DRY_RUN             1: print the commands only

set -f # no globbing: [2,3] is a list of classes

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=python3
[[ ! -x $root/.venv/bin/python ]] || python=$root/.venv/bin/python
SETTING=${SETTING:-2}
[[ $SETTING != 1 ]] || LABEL_SETS=${LABEL_SETS:-all}

# run FILE ARGUMENT...: prints and runs a command of this repository.
run() {
    local command=("${PYTHON:-$python}" "$root/$1" "${@:2}")
    printf '%q ' "${command[@]}"
    echo
    [[ ${DRY_RUN:-0} == 1 ]] || "${command[@]}"
}

# for_each_fold FILE DATASET: runs FILE for every label group and fold.
for_each_fold() {
    local label_set fold
    for label_set in ${LABEL_SETS:-0}; do
        for fold in ${FOLDS:-0}; do
            # shellcheck disable=SC2086 # EXTRA may contain several settings
            run "$1" with alpnet "$2" "setting$SETTING" "label_sets=$label_set" "eval_fold=$fold" \
                "n_steps=${N_STEPS:-100100}" "superpix_scale=${SCALE:-MIDDLE}" "seed=${SEED:-1234}" \
                "num_workers=${NUM_WORKERS:-4}" "device=${DEVICE:-auto}" \
                "path.data_dir=${DATA_DIR:-$root/data}" "path.log_dir=${LOG_DIR:-$root/exps}" \
                ${EXCLUDE:+"exclude_cls_list=$EXCLUDE"} ${EXTRA:-}
        done
    done
}

# make_table DATASET: collects all validation runs under LOG_DIR in one table.
make_table() {
    run validation.py collect with "$1" "path.log_dir=${LOG_DIR:-$root/exps}"
}
