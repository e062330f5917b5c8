"""Export of foreground probabilities, from which the superpixels of a second pass are computed."""

from pathlib import Path

import torch

from dataloaders.images.data import DenseData
from dataloaders.io.png import write_png
from models.methods.base import Method
from models.prediction.segmenter import Segmenter
from util.progress import ProgressBar


def export_probabilities(
    method: Method, data: DenseData, folder: Path, device: torch.device, temperature: float
) -> int:
    """Writes softmax(logits / temperature) of the foreground for each training image, as 16-bit PNG (65535 is 1).

    Args:
        method: segments one structure; on `device`.
        data: its training images.
        folder: receives <id>.png.
        device: where to compute.
        temperature: divides the logits; above 1 the probabilities are less certain.

    Returns:
        Number of images.
    """
    ids, chunks = data.ids("train"), data.labels.chunks(data.config.test_batch)
    segmenter = Segmenter(method, device)
    for where, batch in ProgressBar(chunks, desc="probabilities"):
        found = segmenter.class_probabilities(batch.image, temperature)[:, 1].cpu()
        for image_id, one in zip(ids[where], found, strict=True):
            write_png(folder / f"{image_id}.png", data.in_full((one * 65535).round().to(torch.int32).numpy()))
    return len(ids)
