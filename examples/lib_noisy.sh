# shellcheck shell=bash
# Shared by the scripts for learning from noisy masks: settings, and the loop over runs. Sourced, not run.
#
# Settings are environment variables:
#   METHODS              words of models.presets: methods or losses (default: each script's)
#   ALPHAS       0.3 0.5 0.7   shares of training images with a noisy mask; 0: clean masks
#   BETAS        0.5 0.7       strengths
#   SEEDS        0 1 2         one training each
#   STRUCTURES           JSRT only (default: lung heart clavicle)
#   SIZE_PX              side of the prepared images (default: the paper's)
#   DATA_DIR             data root with the prepared images (default: data of this repository)
#   LOG_DIR              results (default: exps of this repository)
#   NUM_WORKERS  4       DataLoader workers
#   DEVICE       auto    auto, cpu or cuda (NVIDIA and AMD)
#   JOBS         4       processes for noise and superpixels
#   EXTRA                further settings for `training.py with`: "noisy_small" for one CPU (with SIZE_PX=64), "n_steps=1000"
#   PYTHON               interpreter (default: .venv/bin/python of this repository if it exists, else python3)
#   DRY_RUN              1: print the commands only

# shellcheck source=examples/lib_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_run.sh"

# make_noise DATASET STRUCTURE [SIZE]: noisy masks and superpixels for all noise settings; existing ones are reused.
make_noise() {
    local size_px=${SIZE_PX:-${3:-}} alphas=" ${ALPHAS:-0.3 0.5 0.7} "
    local size=()
    [[ -z $size_px ]] || size=(--size-px "$size_px")
    alphas=${alphas/ 0 / } # 0: no noise
    # shellcheck disable=SC2086 # several numbers
    [[ -z ${alphas// /} ]] || run -P -m data.noise "$1" --alpha $alphas --beta ${BETAS:-0.5 0.7} --structure "$2" \
        --data-dir "$data_dir" --jobs "${JOBS:-4}" "${size[@]}"
    [[ " $METHODS " != *" spguided "* ]] ||
        run -P -m data.superpixels "$1" --structure "$2" --data-dir "$data_dir" --jobs "${JOBS:-4}" "${size[@]}"
}

# noises: the keys of each noise, a line each.
noises() {
    local alpha beta
    for alpha in ${ALPHAS:-0.3 0.5 0.7}; do
        if [[ $alpha == 0 ]]; then
            echo "noise.alpha=0"
        else
            for beta in ${BETAS:-0.5 0.7}; do echo "noise.alpha=$alpha noise.beta=$beta"; done
        fi
    done
}

# for_each_run FILE DATA: runs FILE for every method, noise and seed.
for_each_run() {
    local method noise seed
    for method in $METHODS; do
        while read -r noise; do
            for seed in ${SEEDS:-0 1 2}; do
                # shellcheck disable=SC2086 # noise and EXTRA are several words
                run "$root/$1" with "$2" "$method" $noise ${SIZE_PX:+"size_px=$SIZE_PX"} "seed=$seed" \
                    "num_workers=${NUM_WORKERS:-4}" \
                    "device=${DEVICE:-auto}" "path.data_dir=$data_dir" "path.log_dir=$log_dir" ${EXTRA:-} </dev/null
            done
        done < <(noises)
    done
}
