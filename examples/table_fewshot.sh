#!/usr/bin/env bash
# The README's table of few-shot methods with one command: every method on both data sets in both settings, five folds
# each. Trains and validates what is not finished yet, then collects all folds in LOG_DIR/table.md. Run the same command
# to resume, or to add methods. Self-training, whose runs follow from each other, has a script of its own,
# self_training.sh; its scores go into the same table if LOG_DIR is the same.
#
#     bash examples/table_fewshot.sh                                                  # 180 runs, one after the other
#     METHODS="propagation registration threshold" bash examples/table_fewshot.sh     # without training: hours on a CPU
#     SITE=nvidia LAUNCH="--time 08:00:00" bash examples/table_fewshot.sh             # one job array, see docs/clusters.md
#
# A training takes 1.5 to 3.5 hours on one GPU, as reported for the published code.
# Data: see data/CHAOST2/README.md and data/SABS/README.md. Expected Dice: see models/presets/fewshot.py.
#
# Settings are environment variables:
#   METHODS      alpnet ssl_panet alpnet_annotated panet propagation propagation_plain registration threshold
#                             words of models.presets
#   DATASETS     chaost2 sabs
#   SETTINGS     1 2          of the paper; methods without training, which are the same in both, run in the first only
#   FOLDS        0 1 2 3 4
#   LABEL_SETS   0 1          label groups, one training each where a training must not see the tested organs; otherwise
#                             one training serves all
#   SEED         1234
#   DATA_DIR                  data root or prepared folder (default: data of this repository)
#   LOG_DIR                   results (default: exps of this repository); LOG_DIR/finished records finished runs
#   NUM_WORKERS  4            DataLoader workers
#   DEVICE       auto         auto, cpu or cuda (NVIDIA and AMD)
#   EXTRA                     further settings of trained methods: "small" for one CPU, "n_steps=1000"
#   SITE                      a cluster of examples/launch/sites, or your own .toml file; empty: run here
#   LAUNCH                    further options of frugalseg launch: "--account ABC123"
#   PYTHON                    interpreter (default: .venv/bin/python of this repository if it exists, else python3)
#   DRY_RUN                   1: print the runs and commands only
set -euo pipefail

# shellcheck source=examples/lib_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_run.sh"

METHODS=${METHODS:-alpnet ssl_panet alpnet_annotated panet propagation propagation_plain registration threshold}
SETTINGS=${SETTINGS:-1 2}
untrained=" propagation propagation_plain registration threshold "
from_annotations=" alpnet_annotated panet " # of other organs than the tested ones, in both settings

# run_of METHOD WORD...: the line of a run in a list of runs, see `python -m util.launch.item --help`.
run_of() {
    # shellcheck disable=SC2086 # EXTRA may contain several settings
    if [[ $untrained == *" $1 "* ]]; then echo "--validate-only $*"; else echo "$@" ${EXTRA:-}; fi
}

# runs_of DATASET METHOD: the lines of its runs.
runs_of() {
    local setting label_sets label_set fold
    for setting in $SETTINGS; do
        label_sets=${LABEL_SETS:-0 1}
        [[ $setting != 1 || $from_annotations == *" $2 "* ]] || label_sets=all
        if [[ $untrained == *" $2 "* ]]; then
            label_sets=all
            [[ $setting == "${SETTINGS%% *}" ]] || continue
        fi
        for label_set in $label_sets; do
            for fold in ${FOLDS:-0 1 2 3 4}; do
                run_of "$2" "$1" "setting$setting" "label_sets=$label_set" "eval_fold=$fold"
            done
        done
    done
}

# runs: the lines of all runs.
runs() {
    local dataset method
    for dataset in ${DATASETS:-chaost2 sabs}; do
        for method in $METHODS; do runs_of "$dataset" "$method"; done
    done
}

# run_here: one run after the other, and the table.
run_here() {
    local words options
    while read -r -a words; do
        options=(--finished "$log_dir/finished")
        if [[ ${words[0]} == --validate-only ]]; then
            options+=("${words[0]}")
            words=("${words[@]:1}")
        fi
        run -m util.launch.item "${options[@]}" -- "$@" "${words[@]}" </dev/null
    done < <(runs)
    make_table
}

# submit: a job array with all runs, and a job for the table.
submit() {
    local list
    list=$log_dir/fewshot_$(runs | cksum | cut -d ' ' -f 1).runs
    if [[ ${DRY_RUN:-0} == 1 ]]; then
        runs
    else
        mkdir -p "$log_dir"
        runs >"$list"
    fi
    # shellcheck disable=SC2086 # LAUNCH may contain several options
    run -m util.launch --site "$SITE" --mode runs --runs "$list" --finished "$log_dir/finished" --collect --submit \
        ${LAUNCH:-} -- "$@"
}

if [[ -n ${SITE:-} ]]; then
    [[ $data_dir == /* ]] || data_dir=$PWD/$data_dir
    [[ $log_dir == /* ]] || log_dir=$PWD/$log_dir
    cd "$root" # where jobs start
fi
common=("seed=${SEED:-1234}" "num_workers=${NUM_WORKERS:-4}" "device=${DEVICE:-auto}"
    "path.data_dir=$data_dir" "path.log_dir=$log_dir")
if [[ -n ${SITE:-} ]]; then submit "${common[@]}"; else run_here "${common[@]}"; fi
