"""Models of a user that take images, and numbers of words."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn


def convolution(inputs: tuple[int, int, int], classes: int) -> nn.Module:
    """Return a model of (N, C, H, W)."""
    channels, height, width = inputs
    return nn.Sequential(
        nn.Conv2d(channels, 2, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * height * width, classes),
    )


class Embedded(nn.Module):
    """Mean of the embeddings of whole numbers, and one layer."""

    def __init__(self, inputs: int, classes: int, ids: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ids, 3)
        self.last = nn.Linear(3, classes)
        self.inputs = inputs

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits for (N, inputs) whole numbers."""
        assert ids.shape[1] == self.inputs
        return cast("torch.Tensor", self.last(self.embedding(ids).mean(dim=1)))


def embedded(inputs: int, classes: int, ids: int) -> nn.Module:
    """Return a model of (N, inputs) whole numbers below ``ids``."""
    return Embedded(inputs, classes, ids)
