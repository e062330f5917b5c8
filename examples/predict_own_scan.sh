#!/usr/bin/env bash
# Segments a folder of scans with one annotated scan. Can be run from any folder:
#
#   SUPPORT_IMAGE=a.nii.gz SUPPORT_LABEL=a_label.nii.gz SCANS=my_scans OUT=results \
#       examples/predict_own_scan.sh --classes liver=6 spleen=1
#
# CHECKPOINT: a trained few-shot network, in place of label propagation. Options are passed on to
# `python -m models.predict` (see docs/predict_own_scan.md). PYTHON: interpreter.
set -euo pipefail

: "${SUPPORT_IMAGE:?set it to the annotated scan (NIfTI file or DICOM folder)}"
: "${SUPPORT_LABEL:?set it to the label map of the annotated scan (NIfTI)}"
: "${SCANS:?set it to the scan or the folder of scans to segment}"
OUT="${OUT:-segmentations}"

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# -P: do not import a folder named `models` in the current directory.
PYTHONPATH="$repository${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -P -m models.predict \
    ${CHECKPOINT:+--checkpoint "$CHECKPOINT"} --support-image "$SUPPORT_IMAGE" --support-label "$SUPPORT_LABEL" \
    --scans "$SCANS" --out "$OUT" --overlays "$@"
