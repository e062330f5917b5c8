#!/usr/bin/env bash
# What both recipes run while an image is built: a compiler, and the requirements with PyTorch of one variant.
#
#   containers/install.sh cpu|cuda|rocm
set -euo pipefail

variant=${1:?expected cpu, cuda or rocm}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A build for one kind of device ("+cpu", "+rocm7.1") goes before the ordinary one, which brings CUDA's libraries.
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
