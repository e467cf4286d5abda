"""The yardstick: the same ensemble as people write it, in pandas and PyTorch, without slices, store or digests.

It shares the model's class and the declared constants with the federation, and nothing else: it prepares columns by
itself, and draws its own shards, initial weights and order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from shards.models import mlp

_LOSSES: Final = {"class": nn.CrossEntropyLoss(), "number": nn.MSELoss(), "multi_label": nn.BCEWithLogitsLoss()}
_OPTIMIZERS: Final[Mapping[str, Any]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


def prepared(frame: pd.DataFrame, features: Sequence[str], encode: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return the features of a frame of texts, shape (N, F) in float32."""
    names = [name for pattern in features for name in ([pattern] if pattern in frame else _like(frame, pattern))]
    parts = [_column(frame[name], encode.get(name, {})) for name in names]
    return np.column_stack(parts).astype(np.float32)


def _like(frame: pd.DataFrame, pattern: str) -> list[str]:
    return [name for name in frame.columns if fnmatchcase(name, pattern)]


def _column(cells: pd.Series[str], options: Mapping[str, Any]) -> Any:
    missing = cells.isin(["", *options.get("null", [])])
    if "hash" in options:
        return pd.get_dummies(cells).to_numpy(dtype=np.float32)
    if "categories" in options:
        known = [(cells == name) & ~missing for name in options["categories"]]
        return np.column_stack([*known, ~np.any(known, axis=0)]).astype(np.float32)
    numbers = pd.to_numeric(cells.mask(missing), errors="raise").astype(np.float64)
    values = ((numbers - options.get("shift", 0.0)) / options.get("scale", 1.0)).fillna(options.get("missing", 0.0))
    return np.column_stack([values, missing] if options.get("flag_missing") else [values])


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainRecipe:
    """How each of the constituents is trained."""

    target: str
    outputs: int
    shards: int
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    arguments: Mapping[str, Any]


def plain_answers(
    recipe: PlainRecipe,
    features_NF: npt.NDArray[np.float32],
    labels_N: npt.NDArray[Any],
    people: Sequence[str],
    asked_MF: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """Train one model on each shard, and return their mean for other data points: probabilities, or numbers."""
    generator = torch.Generator().manual_seed(11)
    of_person = {who: int(torch.randint(recipe.shards, (), generator=generator)) for who in sorted(set(people))}
    shard_N = np.array([of_person[who] for who in people])
    found = []
    for shard in range(recipe.shards):
        mine = shard_N == shard
        model = _trained(recipe, torch.tensor(features_NF[mine]), torch.tensor(labels_N[mine]), generator)
        with torch.no_grad():
            outputs = model(torch.tensor(asked_MF)).double()
        if recipe.target == "class":
            outputs = outputs.softmax(dim=1)
        found.append((outputs.sigmoid() if recipe.target == "multi_label" else outputs).numpy())
    mean: npt.NDArray[np.float64] = np.mean(found, axis=0)
    return mean


def _trained(
    recipe: PlainRecipe, features: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
) -> nn.Module:
    model = mlp(features.shape[1], recipe.outputs, **recipe.arguments)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    optimizer = _OPTIMIZERS[recipe.optimizer](model.parameters(), lr=recipe.learning_rate)
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(features), generator=generator).split(recipe.batch_size):
            optimizer.zero_grad()
            _LOSSES[recipe.target](model(features[chosen]), labels[chosen]).backward()
            optimizer.step()
    return model
