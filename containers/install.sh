#!/usr/bin/env bash
# Build step of both recipes: installs a compiler and the requirements, with the PyTorch build of one variant.
#
#   containers/install.sh cpu|cuda|rocm
set -euo pipefail

variant=${1:?expected cpu, cuda or rocm}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# pip prefers wheels with a local version ("+cpu", "+rocm7.1") over the default wheels, which include CUDA.
wheels=https://download.pytorch.org/whl
case $variant in
cpu) options=(--extra-index-url "$wheels/cpu" -r requirements.txt) ;;
cuda) options=(-r requirements.txt) ;;
rocm) options=(--extra-index-url "$wheels/rocm7.1" -r requirements-rocm.txt) ;;
*)
    echo "VARIANT=$variant: expected cpu, cuda or rocm" >&2
    exit 1
    ;;
esac

apt-get update
apt-get install --yes --no-install-recommends g++ libgl1 libglib2.0-0 # for torch.compile and for OpenCV
rm -rf /var/lib/apt/lists/*
python -m pip install --no-cache-dir "${options[@]}"
