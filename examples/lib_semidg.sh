# shellcheck shell=bash
# Shared by the scripts for semi-supervised domain generalisation: settings, and the loop over runs. Sourced, not run.
#
# Settings are environment variables:
#   METHODS      cacps        words of models.presets: labelled_only cps mean_teacher cacps mixed_teacher
#   LABELS                    words for the labelled share: labels2 labels5 labels20 labels100 (default: each script's)
#   TARGETS      A B C D      domains that are held out, one run each
#   SEEDS        0            one training each
#   DATA_DIR                  data root with the prepared scans (default: data of this repository)
#   LOG_DIR                   results (default: exps of this repository)
#   NUM_WORKERS  4            DataLoader workers
#   DEVICE       auto         auto, cpu or cuda (NVIDIA and AMD)
#   EXTRA                     further settings for `training.py with`: "semidg_small" for one CPU, "hist_match=none"
#   PYTHON                    interpreter (default: .venv/bin/python of this repository if it exists, else python3)
#   DRY_RUN                   1: print the commands only

# shellcheck source=examples/lib_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_run.sh"

# for_each_target FILE DATA: runs FILE for every method, labelled share, held-out domain and seed.
for_each_target() {
    local method labels target seed
    for method in ${METHODS:-cacps}; do
        # shellcheck disable=SC2153 # set by each script
        for labels in $LABELS; do
            for target in ${TARGETS:-A B C D}; do
                for seed in ${SEEDS:-0}; do
                    # shellcheck disable=SC2086 # EXTRA may contain several settings
                    run "$root/$1" with "$2" "$method" "$labels" "test_domains=[$target]" "seed=$seed" \
                        "num_workers=${NUM_WORKERS:-4}" "device=${DEVICE:-auto}" \
                        "path.data_dir=$data_dir" "path.log_dir=$log_dir" ${EXTRA:-} </dev/null
                done
            done
        done
    done
}
