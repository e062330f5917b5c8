"""Instructions of the CPU that decide which precision is fast."""

import platform

import torch


def bf16_instructions() -> str:
    """The instructions for bfloat16 that PyTorch's convolutions use on this CPU; empty if there are none."""
    try:
        is_used = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):  # built without oneDNN
        is_used = False
    if not is_used:
        return ""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "Arm BF16"
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else ""  # with AVX512 alone oneDNN emulates it
