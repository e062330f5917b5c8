# shellcheck shell=bash
# Shared by the libraries of this folder: where things are, and how a command is run. Sourced, not run.
# Settings: PYTHON, DATA_DIR, LOG_DIR and DRY_RUN, see the libraries.

set -f # no globbing: settings may contain lists such as [0,1]

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=python3
[[ ! -x $root/.venv/bin/python ]] || python=$root/.venv/bin/python
# shellcheck disable=SC2034 # used by the libraries
data_dir=${DATA_DIR:-$root/data}
log_dir=${LOG_DIR:-$root/exps}

# run ARGUMENT...: prints and runs a command of this repository.
run() {
    local command=("${PYTHON:-$python}" "$@")
    printf '%q ' "${command[@]}"
    echo
    # -P: do not import a folder named `models` in the current directory.
    [[ ${DRY_RUN:-0} == 1 ]] || PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "${command[@]}"
}

# make_table: collects all validation runs under LOG_DIR in one table.
make_table() {
    run "$root/validation.py" collect with "path.log_dir=$log_dir"
}
