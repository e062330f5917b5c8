"""Small methods against label noise, and a small store of labels for them."""

import dataclasses
from typing import Any

import numpy as np
import torch

from dataloaders.images.labels import LabelStore
from models.methods.noisy import CoTeaching, JoCoR, SuperpixelGuided, TriNet
from models.networks.unet import UNetConfig

METHODS = [CoTeaching, TriNet, JoCoR, SuperpixelGuided]
SMALL = UNetConfig(in_channels=3, halvings=(2, 2), base_features=4, max_features=8)


def make(method_type, n_classes=2, *, seed=0, **settings: Any):
    torch.manual_seed(seed)
    return method_type(method_type.Config(dataclasses.replace(SMALL, n_classes=n_classes), **settings))


def store(n_images=6, n_classes=2, size=16, seed=0, noise=0.15):
    """Bright squares on a dark ground, some of their labels wrong, superpixels of 4 x 4 pixels."""
    generator = np.random.default_rng(seed)
    clean = np.zeros((n_images, size, size), np.uint8)
    for image in clean:
        for value in range(1, n_classes):
            row, column = generator.integers(0, size // 4 - 1, 2) * 4
            image[row : row + 8, column : column + 8] = value
    wrong = generator.random(clean.shape) < noise
    label = np.where(wrong, (clean + 1) % n_classes, clean).astype(np.uint8)
    image = (clean[..., None] * (200 // n_classes) + generator.integers(0, 40, (*clean.shape, 3))).astype(np.uint8)
    cells = np.arange(size) // 4
    superpixel = np.broadcast_to(cells[:, None] * (size // 4) + cells, clean.shape).astype(np.uint16)
    return LabelStore(image, label, clean, superpixel, ("clean",) * n_images, n_classes)
