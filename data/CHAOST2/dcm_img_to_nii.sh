#!/usr/bin/env bash
# Converts the CHAOS T2-SPIR images with dcm2niix, for those who prefer it to the built-in DICOM reader:
#
#     bash data/CHAOST2/dcm_img_to_nii.sh [RAW] [OUT]
#     python -m data.prepare chaost2 --raw RAW --out OUT        # keeps these images, adds the labels, goes on
#
# RAW  folder that contains MR/<id>/T2SPIR/DICOM_anon   (default: data/CHAOST2)
# OUT  data root; images go to OUT/CHAOST2/niis/T2SPIR/image_<id>.nii.gz   (default: data)
set -euo pipefail

raw=${1:-data/CHAOST2}
out=${2:-data}
target=$out/CHAOST2/niis/T2SPIR

fail() {
    echo "error: $1" >&2
    exit 1
}

command -v dcm2niix > /dev/null ||
    fail "dcm2niix: not found. Install it (conda install -c conda-forge dcm2niix), or use \`python -m data.prepare\`"

shopt -s nullglob
folders=("$raw"/MR/*/T2SPIR/DICOM_anon)
((${#folders[@]})) || fail "$raw: no MR/<id>/T2SPIR/DICOM_anon found. Name the folder that contains MR."

mkdir -p "$target"
work=$(mktemp -d "$target/.converting-XXXXXX")
trap 'rm -rf "$work"' EXIT

for folder in "${folders[@]}"; do
    patient=${folder%/T2SPIR/DICOM_anon}
    id=${patient##*/}
    rm -f "$work"/*
    dcm2niix -b n -z y -f image -o "$work" "$folder" > "$work/log.txt" ||
        fail "$folder: dcm2niix failed: $(cat "$work/log.txt")"
    images=("$work"/*.nii.gz)
    ((${#images[@]} == 1)) ||
        fail "$folder: dcm2niix made ${#images[@]} images, expected 1. Is there one series in the folder?"
    mv "${images[0]}" "$target/image_$id.nii.gz"
    echo "scan $id: $target/image_$id.nii.gz"
done
