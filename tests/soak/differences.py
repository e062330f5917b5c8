"""Bitwise differences of two runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from util.runtime import checkpoint


def differences_of_runs(one: Path, other: Path) -> list[str]:
    """Every part of the checkpoints below two folders, and every file of refined labels, that differs."""
    paths = [next(folder.rglob("checkpoint.pt")) for folder in (one, other)]
    states = [checkpoint.load(path) for path in paths]
    for state in states:
        state["settings"].pop("path")
    files = [{f.name: f.read_bytes() for f in (path.parent / "refined_labels").glob("[0-9]*")} for path in paths]
    return list(
        differences({"checkpoint": states[0], "refined": files[0]}, {"checkpoint": states[1], "refined": files[1]})
    )


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Names of the parts in which two nested states differ in a single bit."""
    if type(one) is not type(other):
        yield f"{name}: {type(one).__name__} and {type(other).__name__}"
    elif isinstance(one, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key, "absent"), other.get(key, "absent"), f"{name}/{key}")
    elif isinstance(one, list | tuple) and len(one) == len(other):
        for position, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{name}/{position}")
    elif isinstance(one, torch.Tensor):
        if (one.shape, one.dtype) != (other.shape, other.dtype) or not torch.equal(_bits(one), _bits(other)):
            yield f"{name}: {one.dtype} of shape {tuple(one.shape)}"
    elif one != other and not (one != one and other != other):
        yield f"{name}: {one!r:.80} and {other!r:.80}"


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
