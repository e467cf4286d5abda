"""The yardstick: a plain resident PyTorch loop, as people write it, without checkpoints, bookkeeping or a store."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch
from torch import nn

from shards.schedule import batch_bounds, slice_epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainTask:
    """The steps of one shard, from ``from_slice`` on."""

    ends: tuple[int, ...]
    epochs: int
    from_slice: int = 1
    batch_size: int = 16


class PlainWorker:
    """Holds the data in memory, as the loop it stands for would."""

    def __init__(self, features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64]) -> None:
        torch.set_num_threads(1)
        self._features = torch.tensor(features_NF)
        self._labels = torch.tensor(labels_N)

    def train(self, task: PlainTask) -> float:
        """Do all steps of a shard; return the seconds they took."""
        features, labels = self._features[: task.ends[-1]], self._labels[: task.ends[-1]]
        model = nn.Sequential(nn.Linear(features.shape[1], 128), nn.Tanh(), nn.Linear(128, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        loss = nn.CrossEntropyLoss()
        started = time.perf_counter()
        schedule = slice_epochs(task.epochs, len(task.ends))
        for end, epochs in list(zip(task.ends, schedule, strict=True))[task.from_slice - 1 :]:
            for _ in range(epochs):
                order = torch.randperm(end)
                for start, stop in batch_bounds(end, task.batch_size):
                    chosen = order[start:stop]
                    optimizer.zero_grad()
                    loss(model(features[chosen]), labels[chosen]).backward()
                    optimizer.step()
        return time.perf_counter() - started


PlainActor: Any = ray.remote(num_cpus=1)(PlainWorker)
