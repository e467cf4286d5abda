"""Model factories that come with the system: ``logistic``, ``mlp`` and ``cnn``.

A factory is called with its ``[model] arguments``; ``inputs`` (number of features) and ``classes`` (number of classes)
are added where it takes them. It returns a module that maps (N, inputs) to logits (N, classes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

from storage.errors import Invalid

_ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}


def logistic(inputs: int, classes: int) -> nn.Module:
    """Return multinomial logistic regression."""
    return nn.Linear(inputs, classes)


def mlp(
    inputs: int,
    classes: int,
    *,
    hidden: Sequence[int] = (128,),
    activation: str = "tanh",
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> nn.Module:
    """Return a multi-layer perceptron with the given hidden widths."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(inputs, width))
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(_activation(activation))
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    layers.append(nn.Linear(inputs, classes))
    return nn.Sequential(*layers)


def cnn(
    inputs: int,
    classes: int,
    *,
    shape: Sequence[int] | None = None,
    channels: Sequence[int] = (16, 32),
    activation: str = "relu",
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> nn.Module:
    """Return a convolutional network: per entry of ``channels`` a 3x3 convolution and a pooling by two, then one layer.

    ``shape`` is (channels, height, width) of one image; default: a square grey image of ``inputs`` pixels.
    """
    depth, height, width = _image_shape(inputs, shape)
    layers: list[nn.Module] = [nn.Unflatten(1, (depth, height, width))]
    for outputs in channels:
        layers.append(nn.Conv2d(depth, outputs, kernel_size=3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers += [_activation(activation), nn.MaxPool2d(2, ceil_mode=True)]
        depth, height, width = outputs, (height + 1) // 2, (width + 1) // 2
    layers.append(nn.Flatten())
    if dropout:
        layers.append(nn.Dropout(dropout))
    layers.append(nn.Linear(depth * height * width, classes))
    return nn.Sequential(*layers)


def _activation(name: str) -> nn.Module:
    if name not in _ACTIVATIONS:
        raise Invalid(f"[model] activation {name!r} is none of {', '.join(_ACTIVATIONS)}", "choose one of these")
    return _ACTIVATIONS[name]()


def _image_shape(inputs: int, shape: Sequence[int] | None) -> tuple[int, int, int]:
    if shape is None:
        side = int(inputs**0.5)
        shape = (1, side, side)
    if len(shape) != 3 or torch.Size(shape).numel() != inputs:
        raise Invalid(
            f"[model] a cnn's shape {list(shape)} does not hold {inputs} features",
            "set arguments.shape to [channels, height, width] whose product is the number of features",
        )
    depth, height, width = shape
    return depth, height, width
