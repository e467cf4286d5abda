"""The PyTorch learner: resident tensors, batches by index, deterministic steps.

Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, Adam, AdamW, Optimizer

from shards.encoding import InputShape
from shards.learners.protocol import Learning
from shards.learners.torch.checkpoint import (
    decode_checkpoint,
    digest_tensors,
    encode_checkpoint,
    model_tensors,
    put_tensors,
)
from shards.learners.torch.factory import build_model, in_shape, received_shape
from shards.learners.torch.seeding import Device, seed_all
from shards.lineage import Lineage
from shards.ordering import INITIAL_WEIGHTS, NOISE, SHUFFLE, epoch_order, stream
from shards.points import ShardPoints
from shards.schedule import batch_bounds, slice_epochs
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings
from storage.digests import Sha256
from storage.errors import Invalid

_PREDICTION_POINTS = 4096


@dataclass(slots=True)
class TorchState:
    """A constituent during training."""

    model: nn.Module
    optimizer: Optimizer


@dataclass(frozen=True, slots=True, eq=False)
class _Resident:
    points: ShardPoints
    features_NF: torch.Tensor
    labels_N: torch.Tensor


class TorchLearner:
    """Learns a ``torch.nn.Module`` with cross-entropy. Implements ``Learner[TorchState]``.

    Call ``shards.learners.torch.seeding.set_numerics`` before constructing one.
    """

    def __init__(
        self,
        *,
        model: ModelSettings,
        training: TrainingSettings,
        inputs: int,
        classes: int,
        slices: int,
        device: Device = "cpu",
        shape: InputShape | None = None,
    ) -> None:
        self._model = model
        self._training = training
        self._inputs = received_shape(model, inputs, shape)
        self._classes = classes
        self._epochs = slice_epochs(training.epochs, slices)
        self._device = torch.device(device)
        self._resident: _Resident | None = None
        self._loss: float | None = None

    def initial(self, shard: ShardId) -> TorchState:
        """Return the state before slice 1: weights drawn from (seed, shard)."""
        seed_all(stream(self._training.seed, shard, SliceIndex(0), 0, INITIAL_WEIGHTS))
        model = build_model(self._model, self._inputs, self._classes).to(self._device)
        if self._training.batch_size == 1 and _batch_norms(model):
            raise Invalid(
                "[training] batch_size = 1 with batch normalisation: one data point has no variance",
                "Set batch_size to 2 or more, or use a model without batch normalisation.",
            )
        return TorchState(model, _optimizer(model, self._training))

    def learn(self, state: TorchState, points: ShardPoints, shard: ShardId, slice_: SliceIndex) -> Learning[TorchState]:
        """Train ``state`` on slices 1..``slice_`` for the epochs of ``slice_`` (SISA section IV)."""
        end, self._loss = points.ends[slice_ - 1], None
        if end == 0:  # a shard without any point keeps its initial state
            return state
        state.model.train()
        described = _described(state.model)
        bounds = batch_bounds(end, self._training.batch_size)
        losses: list[torch.Tensor] = []
        for epoch in range(self.epochs(slice_)):
            shuffle, noise = (stream(self._training.seed, shard, slice_, epoch, use) for use in (SHUFFLE, NOISE))
            seed_all(noise)
            order = torch.from_numpy(epoch_order(points.keys_N[:end], shuffle)).to(self._device)
            is_last = epoch + 1 == self.epochs(slice_)
            self._epoch(state, self._resident_points(points), order, bounds, losses if is_last else None)
            yield epoch + 1
        _refuse_diverged(state.model, shard, slice_)
        _check_described(state.model, described)
        self._loss = _mean(losses, bounds)
        return state

    def loss(self) -> float | None:
        """Return the mean loss of the last epoch learned, for display; None before the first one."""
        return self._loss

    def epochs(self, slice_: SliceIndex) -> int:
        """Return how many epochs ``learn`` takes."""
        return self._epochs[slice_ - 1]

    def steps(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """Return how many optimizer steps ``learn`` takes."""
        return self._epochs[slice_ - 1] * len(batch_bounds(points.ends[slice_ - 1], self._training.batch_size))

    def probabilities(self, state: TorchState, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return softmax probabilities, shape (N, C)."""
        state.model.eval()
        parts = [np.empty((0, self._classes), dtype=np.float64)]
        with torch.inference_mode():
            for start in range(0, len(features_NF), _PREDICTION_POINTS):
                chunk = torch.tensor(features_NF[start : start + _PREDICTION_POINTS], device=self._device)
                logits = state.model(in_shape(chunk, self._inputs)).to(device="cpu", dtype=torch.float64)
                parts.append(functional.softmax(logits, dim=1).numpy())
        return np.concatenate(parts)

    def digest(self, state: TorchState) -> Sha256:
        """Return the digest of parameters and buffers."""
        return digest_tensors(model_tensors(state.model))

    def to_bytes(self, state: TorchState, lineage: Lineage) -> bytes:
        """Return the checkpoint."""
        return encode_checkpoint(state.model, state.optimizer, lineage)

    def from_bytes(self, payload: bytes, shard: ShardId) -> TorchState:
        """Return the state that a checkpoint holds. Raises ``Corrupt`` when it does not fit this model."""
        tensors = decode_checkpoint(payload)
        state = self.initial(shard)
        put_tensors(state.model, state.optimizer, tensors)
        return state

    def _epoch(
        self,
        state: TorchState,
        data: _Resident,
        order_N: torch.Tensor,
        bounds: tuple[tuple[int, int], ...],
        losses: list[torch.Tensor] | None,
    ) -> None:
        # Measured: this loop is the whole cost of training. Nothing in it runs per point, and nothing is logged.
        model, optimizer = state.model, state.optimizer
        for start, stop in bounds:
            chosen = order_N[start:stop]
            # Copied into new tensors: the bits depend on the alignment of a view (E7).
            features, labels = data.features_NF.index_select(0, chosen), data.labels_N.index_select(0, chosen)
            features = in_shape(features, self._inputs)
            optimizer.zero_grad(set_to_none=True)
            if stop - start == 1:
                with _frozen_statistics(model):
                    loss = functional.cross_entropy(model(features), labels)
                    loss.backward()
            else:
                loss = functional.cross_entropy(model(features), labels)
                loss.backward()
            optimizer.step()
            if losses is not None:  # last epoch only, and kept on the device: reading it would wait for the step
                losses.append(loss.detach())

    def _resident_points(self, points: ShardPoints) -> _Resident:
        if self._resident is None or self._resident.points is not points:
            self._resident = _Resident(
                points,
                torch.from_numpy(points.features_NF).to(self._device),
                torch.from_numpy(points.labels_N).to(self._device),
            )
        return self._resident


def _optimizer(model: nn.Module, training: TrainingSettings) -> Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise Invalid("[model] the model has no parameter to train", "Use a model with trainable parameters.")
    decay = training.effective_weight_decay
    if training.optimizer == "sgd":
        return SGD(
            parameters,
            lr=training.learning_rate,
            momentum=training.momentum,
            nesterov=training.nesterov,
            weight_decay=decay,
        )
    kind = Adam if training.optimizer == "adam" else AdamW
    return kind(parameters, lr=training.learning_rate, betas=training.betas, eps=training.epsilon, weight_decay=decay)


def _described(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in model_tensors(model).items()}


def _check_described(model: nn.Module, before: Mapping[str, tuple[torch.Size, torch.dtype]]) -> None:
    """Refuse a model that grows during training: its checkpoint would not fit the model that the factory builds."""
    after = _described(model)
    if changed := sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)):
        raise Invalid(
            f"[model] parameters or buffers changed name, shape or dtype while the model learned: {', '.join(changed)}",
            "Give all of them their final shape when the model is built.",
        )


def _refuse_diverged(model: nn.Module, shard: ShardId, slice_: SliceIndex) -> None:
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise Invalid(
            "training diverged: parameters are no longer finite",
            "Lower [training] learning_rate, or bring features to about -1 .. 1 with [data] scale; then 'sisa train'.",
            shard=shard,
            slice=slice_,
        )


def _mean(losses: list[torch.Tensor], bounds: tuple[tuple[int, int], ...]) -> float:
    """Return the mean loss per data point, from the mean losses of the batches."""
    counts = torch.tensor([stop - start for start, stop in bounds], dtype=torch.float64)
    each = torch.stack(losses).to(device="cpu", dtype=torch.float64)
    return float((each * counts).sum() / counts.sum())


def _batch_norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def _frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch normalisation use its running statistics, because a single data point has no batch statistics.

    Needed only for a shard with one point: otherwise a last batch of one point is merged into the one before.
    """
    layers = [layer for layer in _batch_norms(model) if layer.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
