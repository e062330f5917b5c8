# shellcheck shell=bash
# Shared by the scripts for several partly labelled data sets: settings, and the loop over runs. Sourced, not run.
#
# Settings are environment variables:
#   METHODS      generator pssnet   what is compared, in this order of steps:
#                    experts        one network per task, on the data set that is annotated for it
#                    naive          one network for all, with missing annotations as background
#                    generator      one network with a head per task: stage 1, from which pseudo-labels are made
#                    pseudo         + its pseudo-labels
#                    adversarial    + discriminators
#                    pssnet         + attention between tasks: stage 2
#                    teacher        an averaged teacher in place of stages
#   SEEDS        0            one training each
#   DATA_DIR                  data root with the prepared images (default: data of this repository)
#   LOG_DIR                   results (default: exps of this repository); pseudo-labels in LOG_DIR/pseudo_labels
#   NUM_WORKERS  4            DataLoader workers
#   DEVICE       auto         auto, cpu or cuda (NVIDIA and AMD)
#   EXTRA                     further settings for `training.py with`: "partial_small" for one CPU
#   PYTHON                    interpreter (default: .venv/bin/python of this repository if it exists, else python3)
#   DRY_RUN                   1: print the commands only

# shellcheck source=examples/lib_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib_run.sh"

# run_words FILE VERB SEED WORD...: one command of one run; VERB may be empty.
run_words() {
    local file=$1 verb=$2 seed=$3
    shift 3
    # shellcheck disable=SC2086 # VERB may be empty, EXTRA may contain several settings
    run "$root/$file" $verb with "$@" "seed=$seed" "num_workers=${NUM_WORKERS:-4}" "device=${DEVICE:-auto}" \
        "path.data_dir=$data_dir" "path.log_dir=$log_dir" ${EXTRA:-} </dev/null
}

# for_each_method FILE: runs FILE for every method and seed; training makes pseudo-labels before they are needed.
for_each_method() {
    local seed method task labels
    for seed in ${SEEDS:-0}; do
        labels="pseudo_labels=$log_dir/pseudo_labels/seed$seed"
        for method in ${METHODS:-generator pssnet}; do
            case $method in
            experts)
                for task in vessel lesion disc; do
                    run_words "$1" "" "$seed" "fundus_$task" partial_generator
                done
                ;;
            naive) run_words "$1" "" "$seed" fundus partial_naive ;;
            generator)
                run_words "$1" "" "$seed" fundus partial_generator
                [[ $1 != training.py ]] ||
                    run_words validation.py export "$seed" fundus partial_generator "export_to=${labels#*=}"
                ;;
            pseudo)
                run_words "$1" "" "$seed" fundus partial_adversarial "$labels" adversarial_weight=0 attention=False
                ;;
            adversarial) run_words "$1" "" "$seed" fundus partial_adversarial "$labels" attention=False ;;
            pssnet) run_words "$1" "" "$seed" fundus partial_adversarial "$labels" ;;
            teacher) run_words "$1" "" "$seed" fundus partial_teacher ;;
            *)
                echo "METHODS: $method is unknown; expected some of" \
                    "experts naive generator pseudo adversarial pssnet teacher." >&2
                exit 1
                ;;
            esac
        done
    done
}
