"""The PyTorch learner: resident tensors, batches by index, deterministic steps.

Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from shards.encoding import InputShape
from shards.learners.protocol import Learning, OutputsAtOnce
from shards.learners.torch.checkpoint import (
    base_digests,
    decode_checkpoint,
    decode_model,
    digest_tensors,
    encode_checkpoint,
    model_tensors,
    put_tensors,
    state_tensors,
)
from shards.learners.torch.copies import filled, form_of, model_of_pieces
from shards.learners.torch.engines.kept import KeptRecording
from shards.learners.torch.engines.recording import Recording, Unrepeatable, address_of, record_step
from shards.learners.torch.engines.replay import (
    Replay,
    StepBatch,
    StepEngine,
    StepTrial,
    is_of_torch,
    recording_of,
    wants_trial,
)
from shards.learners.torch.engines.steps import take_step
from shards.learners.torch.factory import build_model, in_shape, received_shape
from shards.learners.torch.recipe import Recipe, check_finite, check_learns, optimizer_of
from shards.learners.torch.seeding import generator_of, seed_all
from shards.learners.torch.stacked import MOST_POINTS, stacked_models
from shards.lineage import Device, Lineage
from shards.ordering import AUGMENT, INITIAL_WEIGHTS, NOISE, SHUFFLE, STEP, epoch_order, stream
from shards.points import ShardPoints
from shards.recipe.engines import EAGER
from shards.recipe.learning_rate import Schedule, progress_at
from shards.schedule import batch_bounds, slice_epochs
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings
from shards.targets import Class, MultiLabel, Number
from storage.digests import Sha256
from storage.errors import Invalid

_PREDICTION_POINTS = 4096
_TRIED_SHARES: Final = (1.0, 0.5, 0.25, 0.75, 1.0)
"""Shares of the learning rate in the steps of a trial: it may not be part of what is replayed."""
_BUILDING: Final = Lock()
"""Held while a model is built on one of several threads: initial weights come from the process's one generator."""

_ACTIVATIONS: Final[Mapping[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    Class.kind: partial(functional.softmax, dim=1),
    Number.kind: lambda outputs: outputs,
    MultiLabel.kind: torch.sigmoid,
}
"""The function that turns a model's outputs into answers, by target."""


@dataclass(slots=True)
class AnsweringState:
    """A constituent that only answers."""

    model: nn.Module


@dataclass(slots=True)
class TorchState(AnsweringState):
    """A constituent during training."""

    optimizer: Optimizer
    recipe: Recipe
    base: Mapping[str, Sha256] | None = None
    """Digests of the model's tensors as it was built, if it reads declared files; see ``encode_checkpoint``."""


@dataclass(frozen=True, slots=True, eq=False)
class _Resident:
    points: ShardPoints
    features_NF: torch.Tensor
    labels_N: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Epoch:
    """The identity of an epoch."""

    order_N: torch.Tensor
    bounds: tuple[tuple[int, int], ...]
    done: int
    """Declared epochs of the whole training that come before it."""
    is_first: bool
    """Whether it is the first of its slice."""
    augmenting: torch.Generator | None
    stepping: torch.Generator | None
    engine: StepEngine


class TorchLearner:
    """Learns a ``torch.nn.Module`` by the declared recipe. Implements ``Learner[TorchState]``.

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
        target: str = Class.kind,
    ) -> None:
        self._model = model
        self._target = target
        self._training = training
        self._inputs = received_shape(model, inputs, shape)
        self._classes = classes
        self._epochs = slice_epochs(training.epochs, slices)
        self._schedule = Schedule.of(training.schedule) if training.schedule else None
        self._device = torch.device(device)
        self._resident: _Resident | None = None
        self._loss: float | None = None
        self._engine_asked = training.engine
        self._kept = KeptRecording()
        self._taken = 0
        """Steps that were taken eagerly because a trial did not pay."""
        self._forms: tuple[nn.Module | None] | None = None  # under ``_BUILDING``

    def initial(self, shard: ShardId) -> TorchState:
        """Return the state before slice 1: weights drawn from (seed, shard)."""
        model = self._built(shard)
        recipe = Recipe.of(self._training, self._device, self._target)
        base = base_digests(model) if self._model.files else None
        return TorchState(model, optimizer_of(model, self._training), recipe, base)

    def _built(self, shard: ShardId) -> nn.Module:
        seed_all(stream(self._training.seed, shard, SliceIndex(0), 0, INITIAL_WEIGHTS))
        model = build_model(self._model, self._inputs, self._classes, self._target).to(self._device)
        if self._training.batch_size == 1 and _batch_norms(model):
            raise Invalid(
                "[training] batch_size = 1 with batch normalisation: one data point has no variance",
                "Set batch_size to 2 or more, or use a model without batch normalisation.",
            )
        return model

    def learn(self, state: TorchState, points: ShardPoints, shard: ShardId, slice_: SliceIndex) -> Learning[TorchState]:
        """Train ``state`` on slices 1..``slice_`` for the epochs of ``slice_`` (SISA section IV)."""
        end, self._loss = points.ends[slice_ - 1], None
        if end == 0:  # a shard without any point keeps its initial state
            return state
        state.model.train()
        described = _described(state.model)
        bounds = batch_bounds(end, self._training.batch_size)
        engine = self._engine(state, points, shard, slice_)
        losses: list[torch.Tensor] = []
        done = sum(self._epochs[: slice_ - 1])
        for number in range(self.epochs(slice_)):
            uses = (SHUFFLE, NOISE, AUGMENT, STEP)
            shuffle, noise, augment, step = (stream(self._training.seed, shard, slice_, number, use) for use in uses)
            seed_all(noise)
            epoch = _Epoch(
                order_N=torch.from_numpy(epoch_order(points.keys_N[:end], shuffle)).to(self._device),
                bounds=bounds,
                done=done + number,
                is_first=number == 0,
                augmenting=None if self._training.augment is None else generator_of(augment, self._device),
                stepping=None if self._training.step is None else generator_of(step, self._device),
                engine=engine,
            )
            is_last = number + 1 == self.epochs(slice_)
            self._learn_epoch(state, self._resident_points(points), epoch, losses if is_last else None)
            yield number + 1
        engine.release()
        self._loss = _mean(losses, bounds)
        if state.recipe.is_users:
            check_finite(self._loss, self._training)
        _refuse_diverged(state.model, shard, slice_)
        _check_described(state.model, described)
        return state

    def loss(self) -> float | None:
        """Return the mean loss of the last epoch learned, for display; None before the first one."""
        return self._loss

    def epochs(self, slice_: SliceIndex) -> int:
        """Return how many epochs ``learn`` takes."""
        return self._epochs[slice_ - 1]

    def steps(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """Return how many optimizer steps ``learn`` takes."""
        return self.epochs(slice_) * len(batch_bounds(points.ends[slice_ - 1], self._training.batch_size))

    def probabilities(self, state: AnsweringState, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the target's outputs, shape (N, C): probabilities by softmax or sigmoid, or numbers as they are."""
        if state.model.training:
            state.model.eval()
        activate = _ACTIVATIONS[self._target]
        parts = [np.empty((0, self._classes), dtype=np.float64)]
        with torch.inference_mode():
            for start in range(0, len(features_NF), _PREDICTION_POINTS):
                chunk = torch.tensor(features_NF[start : start + _PREDICTION_POINTS], device=self._device)
                outputs = state.model(in_shape(chunk, self._inputs)).to(device="cpu", dtype=torch.float64)
                parts.append(activate(outputs).numpy())
        return np.concatenate(parts)

    def at_once(self, states: Sequence[AnsweringState]) -> OutputsAtOnce | None:
        """Return what asks all of the constituents, in common tensors where they are small; see ``AnswersAtOnce``."""
        is_plain = self._device.type == "cpu" and len(self._inputs.shape) == 1 and not self._inputs.ids
        together = stacked_models([state.model for state in states]) if is_plain else None
        if together is None:
            return None
        activate = _ACTIVATIONS[self._target]

        def outputs(features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
            if len(features_NF) > MOST_POINTS:
                return np.stack([self.probabilities(state, features_NF) for state in states])
            with torch.inference_mode():
                outputs_KNW = together(torch.tensor(features_NF)).double()
                # The activations take one constituent's outputs, (N, W); they know nothing of K.
                found: npt.NDArray[np.float64] = activate(outputs_KNW.flatten(0, 1)).view_as(outputs_KNW).numpy()
            return found

        return OutputsAtOnce(outputs, together.quick_points)

    def digest(self, state: AnsweringState) -> Sha256:
        """Return the digest of parameters and buffers."""
        return digest_tensors(model_tensors(state.model))

    def to_bytes(self, state: TorchState, lineage: Lineage) -> bytes:
        """Return the checkpoint."""
        return encode_checkpoint(state.model, state.optimizer, lineage, state.base)

    def from_bytes(self, payload: bytes, shard: ShardId) -> TorchState:
        """Return the state that a checkpoint holds. Raises ``Corrupt`` when it does not fit this model."""
        tensors = decode_checkpoint(payload)
        state = self.initial(shard)
        put_tensors(state.model, state.optimizer, tensors)
        return state

    def prepare_to_open(self) -> None:
        """Import all of the model's code and the recipe's, and build what opening needs; see ``OpensForAnswers``."""
        if self._form() is None or self._training.code:
            self.initial(ShardId(0))

    def open_for_answers(self, payload: bytes, shard: ShardId) -> AnsweringState:
        """Return the constituent in a checkpoint, without the optimizer and its state; see ``OpensForAnswers``."""
        tensors = decode_model(payload) if self._device.type == "cpu" else None
        found = self._with_tensors(tensors)
        if found is None:
            with _BUILDING:
                found = AnsweringState(self.from_bytes(payload, shard).model)
        return found

    def open_pieces(self, pieces: Iterable[memoryview]) -> AnsweringState | None:
        """Return the constituent in a checkpoint that comes in by pieces; see ``OpensForAnswers``."""
        is_known = self._device.type == "cpu" and self._form() is not None
        return self._with_tensors(model_of_pieces(pieces)) if is_known else None

    def _with_tensors(self, tensors: Mapping[str, torch.Tensor] | None) -> AnsweringState | None:
        form = None if tensors is None else self._form()
        model = None if tensors is None or form is None else filled(form, tensors)
        return None if model is None else AnsweringState(model)

    def _form(self) -> nn.Module | None:
        """Return the form that the constituents have, built once; None if each has to be built on its own.

        It has no optimizer: to make one, torch imports its compiler, two seconds of the processor.
        """
        with _BUILDING:
            if self._forms is None:
                self._forms = (form_of(self._built(ShardId(0))),)
            return self._forms[0]

    def _learn_epoch(
        self, state: TorchState, data: _Resident, epoch: _Epoch, losses: list[torch.Tensor] | None
    ) -> None:
        # Measured: this loop is the whole cost of training. Nothing in it runs per point, and nothing is logged.
        engine, size = epoch.engine, self._training.batch_size
        for number, (start, stop) in enumerate(epoch.bounds):
            chosen, rate = epoch.order_N[start:stop], self._rate(epoch, number)
            if engine.replay is not None and stop - start == size:
                loss = self._replay(engine.replay, state, data, chosen, epoch, rate)
            else:
                batch = self._batch(state.recipe, data, chosen, epoch, rate)
                loss = engine.eagerly(partial(self._take, state, batch, epoch.stepping))
                if state.recipe.is_users and epoch.is_first and number == 0:
                    check_learns(state.optimizer)
                if stop - start == size:
                    engine.start(state)
            if losses is not None:  # last epoch only, and kept on the device: reading it would wait for the step
                losses.append(loss.clone())

    def _batch(self, recipe: Recipe, data: _Resident, chosen: torch.Tensor, epoch: _Epoch, rate: float) -> StepBatch:
        # Copied into new tensors: the bits depend on the alignment of a view (E7).
        features, labels = data.features_NF.index_select(0, chosen), data.labels_N.index_select(0, chosen)
        features = in_shape(features, self._inputs)
        if recipe.augment is not None:
            features = recipe.augment(features, epoch.augmenting)
        return StepBatch(features, labels, rate)

    def _replay(
        self, replay: Replay, state: TorchState, data: _Resident, chosen: torch.Tensor, epoch: _Epoch, rate: float
    ) -> torch.Tensor:
        if state.recipe.augment is None and len(self._inputs.shape) == 1 and not self._inputs.ids:
            replay.select(data.features_NF, data.labels_N, chosen)
        else:
            batch = self._batch(state.recipe, data, chosen, epoch, rate)
            if not replay.fits(batch.features):
                return replay.eagerly(partial(self._take, state, batch, epoch.stepping))
            replay.put(batch.features, batch.labels)
        return replay.step(rate, epoch.stepping)

    def _rate(self, epoch: _Epoch, batch: int) -> float:
        if self._schedule is None:
            return self._training.learning_rate
        progress = progress_at(epoch.done, batch, len(epoch.bounds), sum(self._epochs))
        return self._training.learning_rate * self._schedule.share(progress)

    def _take(self, state: TorchState, batch: StepBatch, generator: torch.Generator | None) -> torch.Tensor:
        """Take a step eagerly, and return the loss."""
        optimizer = state.optimizer
        optimizer.zero_grad(set_to_none=True)
        with _frozen_statistics(state.model) if len(batch.labels) == 1 else nullcontext():
            loss = state.recipe.step(state.model, batch.features, batch.labels, generator)
            loss.backward()
        if self._training.gradient_clip is not None:
            clip_grad_norm_(optimizer.param_groups[0]["params"], self._training.gradient_clip)
        optimizer.param_groups[0]["lr"] = batch.rate
        take_step(optimizer)
        return loss.detach()

    def _record(self, state: TorchState, batch: StepBatch, generator: torch.Generator | None) -> Recording:
        """Take a step up to the optimizer's, and return its recording."""
        clip = self._training.gradient_clip
        return record_step(state.recipe.step, state.model, batch.features, batch.labels, generator, clip)

    def _engine(self, state: TorchState, points: ShardPoints, shard: ShardId, slice_: SliceIndex) -> StepEngine:
        """Return the engine for the steps of a slice; if no recording is kept, a trial may make one."""
        ahead = [self._whole_batches(points, SliceIndex(each)) for each in range(slice_, len(points.ends) + 1)]
        if self._device.type != "cpu" or self._engine_asked == EAGER or not ahead[0]:
            return StepEngine()
        is_torchs = not state.recipe.is_users and is_of_torch(state.model)
        if is_torchs and (kept := self._kept.fitting(state.model)) is not None:
            return StepEngine(kept)
        # What is not kept has to pay within its slice; what is kept, sooner or later in this process.
        steps = self._taken + sum(ahead) if is_torchs else ahead[0]
        if not wants_trial(self._engine_asked, state.model, steps, is_torchs=is_torchs):
            self._taken += ahead[0]
            return StepEngine()
        recording = recording_of(self._engine_asked, self._trial(state, points, shard, slice_))
        if recording is None:
            self._engine_asked = EAGER  # the model is built alike for all shards
        elif is_torchs:
            self._kept.keep(state.model, recording)
        return StepEngine(recording)

    def _whole_batches(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """Return how many steps of a slice learn from as many data points as the setting says."""
        size = self._training.batch_size
        bounds = batch_bounds(points.ends[slice_ - 1], size)
        return self.epochs(slice_) * sum(stop - start == size for start, stop in bounds)

    def _trial(
        self, state: TorchState, points: ShardPoints, shard: ShardId, slice_: SliceIndex
    ) -> StepTrial[TorchState]:
        """Return a trial on the data points of a slice, for constituents in the state of this one."""
        data, end, size = self._resident_points(points), points.ends[slice_ - 1], self._training.batch_size

        def batch(start: int, points: int, share: float) -> StepBatch:
            chosen = torch.arange(start, start + points) % end
            features = in_shape(data.features_NF.index_select(0, chosen), self._inputs)
            return StepBatch(features, data.labels_N.index_select(0, chosen), self._training.learning_rate * share)

        held = {name: each.detach().clone() for name, each in state_tensors(state.model, state.optimizer).items()}

        def twin() -> TorchState:
            made = self.initial(shard)
            if not _addresses(made.model).isdisjoint(_addresses(state.model)):
                put_tensors(state.model, state.optimizer, held)
                raise Unrepeatable("the factory returns a model that shares memory with the one before")
            put_tensors(made.model, made.optimizer, held)
            made.model.train()
            return made

        start, stop = batch_bounds(end, size)[-1]
        return StepTrial(
            twin=twin,
            take=self._take,
            record=self._record,
            full=[batch(number * size, size, share) for number, share in enumerate(_TRIED_SHARES)],
            odd=batch(0, stop - start, 0.5) if stop - start != size else None,
            stream=stream(self._training.seed, shard, slice_, 0, NOISE),
        )

    def _resident_points(self, points: ShardPoints) -> _Resident:
        if self._resident is None or self._resident.points is not points:
            self._resident = _Resident(
                points,
                torch.from_numpy(points.features_NF).to(self._device),
                torch.from_numpy(points.labels_N).to(self._device),
            )
        return self._resident


def _addresses(model: nn.Module) -> set[int]:
    return {address_of(each) for each in model_tensors(model).values()}


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
