"""Parts of a batch, named on the host, so that choosing them never waits for the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

Rows = Sequence[slice]  # images of a batch: ranges of neighbours

EVERY: Rows = (slice(None),)


def select_rows(values: Tensor, rows: Rows) -> Tensor:
    """The chosen images (N, ...) of a batch (B, ...); a view where they are neighbours or none."""
    if len(rows) == 1:
        return values[rows[0]]
    return torch.cat([values[each] for each in rows]) if rows else values[:0]
