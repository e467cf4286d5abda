"""The learner of scikit-learn's estimators: an epoch is one call of ``partial_fit``, in the order of the points' keys.

Shape legend: N points, F features, W outputs of the model.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from shards.learner_kinds.scikit import ScikitArguments
from shards.learners.protocol import Learning
from shards.learners.scikit.attributes import ATTRIBUTES, SERVING, put, taken
from shards.learners.tensors import Tensors, decode_arrays, digest_arrays, encode_arrays, not_serving
from shards.lineage import Lineage, NumericsProfile
from shards.ordering import INITIAL_WEIGHTS, SHUFFLE, epoch_order, stream
from shards.points import ShardPoints
from shards.schedule import slice_epochs
from shards.specification import ShardId, SliceIndex, TrainingSettings
from shards.targets import Class
from storage.digests import Sha256
from storage.errors import Corrupt, Invalid


@dataclass(frozen=True, slots=True, eq=False)
class Estimators:
    """A constituent."""

    each: tuple[Any, ...] = ()
    """One estimator, or one for each number if it predicts a single one; none before the first data point."""


class Scikit:
    """Learns with ``partial_fit``. Implements ``Learner[Estimators]``."""

    def __init__(
        self,
        arguments: ScikitArguments,
        inputs: int,
        outputs: int,
        target: str,
        training: TrainingSettings,
        slices: int,
    ) -> None:
        self._arguments = arguments
        self._inputs = inputs
        self._outputs = outputs
        self._is_class = target == Class.kind
        self._seed = training.seed
        self._epochs = slice_epochs(training.epochs, slices)

    def initial(self, shard: ShardId) -> Estimators:
        """Return a constituent that has learned nothing."""
        del shard
        return Estimators()

    def learn(self, state: Estimators, points: ShardPoints, shard: ShardId, slice_: SliceIndex) -> Learning[Estimators]:
        """Train on slices 1..``slice_`` for the epochs of ``slice_``; may modify ``state``."""
        end = points.ends[slice_ - 1]
        if end == 0:
            return state
        state = state if state.each else Estimators(self._new(shard))
        for epoch in range(self.epochs(slice_)):
            order_N = epoch_order(points.keys_N[:end], stream(self._seed, shard, slice_, epoch, SHUFFLE))
            features_NF, labels_NW = points.features_NF[order_N], points.labels_N[order_N].reshape(end, -1)
            with _one_thread():
                for column, estimator in enumerate(state.each):
                    labels_N = labels_NW[:, column].copy()
                    self._learn_epoch(estimator, features_NF, labels_N, shard, slice_)
            yield epoch + 1
        return state

    def epochs(self, slice_: SliceIndex) -> int:
        """Return how many epochs ``learn`` takes."""
        return self._epochs[slice_ - 1]

    def steps(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """Return how often ``partial_fit`` is called for each output."""
        return self._epochs[slice_ - 1] if points.ends[slice_ - 1] else 0

    def probabilities(self, state: Estimators, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the outputs, shape (N, W); of an estimator without probabilities, 1 for the class that it predicts."""
        points = len(features_NF)
        if not state.each or not points:
            return np.full((points, self._outputs), 1 / self._outputs if self._is_class else 0.0)
        with _one_thread():
            if not self._is_class:
                return np.column_stack([each.predict(features_NF) for each in state.each]).astype(np.float64)
            (estimator,) = state.each
            if hasattr(estimator, "predict_proba"):
                return np.asarray(estimator.predict_proba(features_NF), dtype=np.float64)
            voted_NW: npt.NDArray[np.float64] = np.eye(self._outputs)[estimator.predict(features_NF)]
            return voted_NW

    def digest(self, state: Estimators) -> Sha256:
        """Return the digest of all that the estimators have learned."""
        return digest_arrays(self.arrays(state))

    def arrays(self, state: Estimators, only: frozenset[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Return the content of a checkpoint; with ``only``, just these attributes."""
        held = {
            f"{number:04d}/{name}": array
            for number, estimator in enumerate(state.each)
            for name, array in taken(estimator, only).items()
        }
        return held or {ATTRIBUTES: np.zeros(0, dtype=np.uint8)}

    def to_serving(self, state: Estimators) -> Tensors:
        """Return the coefficients and everything else that answers need, without the state of training."""
        return self.arrays(state, SERVING)

    def from_serving(self, arrays: Tensors) -> Estimators:
        """Return the same as a state that answers."""
        try:
            state = self._read(arrays, ShardId(0), SERVING)
        except Corrupt as error:
            raise not_serving() from error
        if self.to_serving(state).keys() != arrays.keys():
            raise not_serving()
        return state

    def to_bytes(self, state: Estimators, lineage: Lineage) -> bytes:
        """Return the checkpoint."""
        return encode_arrays(self.arrays(state), lineage)

    def from_bytes(self, payload: bytes, shard: ShardId) -> Estimators:
        """Return the constituent that a checkpoint holds. Raises ``Corrupt`` when it is not one of this learner."""
        return self._read(decode_arrays(payload), shard)

    def _read(self, arrays: Tensors, shard: ShardId, only: frozenset[str] | None = None) -> Estimators:
        if arrays.keys() == {ATTRIBUTES}:
            return Estimators()
        state = Estimators(self._new(shard))
        try:
            for number, estimator in enumerate(state.each):
                begin = f"{number:04d}/"
                own = {key.removeprefix(begin): each for key, each in arrays.items() if key.startswith(begin)}
                put(estimator, own, only)
                if estimator.n_features_in_ != self._inputs:
                    _refuse()
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            fact = f"a checkpoint holds no {self._arguments.estimator} of this model"
            raise Corrupt(fact, "Run 'sisa train' to rebuild it.") from error
        return state

    def _new(self, shard: ShardId) -> tuple[Any, ...]:
        seed = stream(self._seed, shard, SliceIndex(0), 0, INITIAL_WEIGHTS) >> 32
        return tuple(self._arguments.made(seed) for _ in range(1 if self._is_class else self._outputs))

    def _learn_epoch(self, estimator: Any, features_NF: Any, labels_N: Any, shard: ShardId, slice_: SliceIndex) -> None:
        declared = {"classes": np.arange(self._outputs)} if self._is_class else {}
        try:
            estimator.partial_fit(features_NF, labels_N, **declared)
        except ValueError:
            diverged = True  # its text may quote data
        else:
            arrays = taken(estimator).values()
            diverged = not all(np.isfinite(array).all() for array in arrays)
        if diverged:
            raise Invalid(
                "training diverged: what the estimator has learned is no longer finite",
                "Lower its learning rate, or bring features to about -1 .. 1 with [data] scale; then 'sisa train'.",
                shard=shard,
                slice=slice_,
            )


def _refuse() -> None:
    raise ValueError


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, and without warnings of scikit-learn, which are for people who call it."""
    with _controller().limit(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def scikit_profile(probed: bool) -> NumericsProfile:  # noqa: FBT001  the registry calls it
    """Return what decides the bits besides the specification (E7); ``probed``: see ``fix_numerics``."""
    return NumericsProfile(
        torch="",
        threads=1,
        device=f"cpu/{platform.machine()}",
        dtype="float32",
        deterministic=True,
        packing="none",
        probe=_probe() if probed else None,
        library=f"scikit-learn {version('scikit-learn')}, NumPy {np.__version__}, SciPy {version('scipy')}",
    )


@cache
def _probe() -> Sha256:
    """Return the digest of two small models that are always trained on the same made-up points."""
    mixed_NF = (np.arange(300 * 33, dtype=np.int64) * 2654435761 % 2**24).reshape(300, 33)
    features_NF = (mixed_NF / 2**23 - 1).astype(np.float32)
    labels_N, arrays = np.arange(300) * 7 % 3, dict[str, npt.NDArray[Any]]()
    tried: Mapping[str, dict[str, Any]] = {"MLPClassifier": {"hidden_layer_sizes": [65]}, "SGDClassifier": {}}
    for name, parameters in tried.items():
        estimator = ScikitArguments(estimator=name, parameters=parameters).made(seed=1)
        with _one_thread():
            for _ in range(2):
                estimator.partial_fit(features_NF, labels_N, classes=np.arange(3))
        arrays |= {f"{name}/{each}": array for each, array in taken(estimator).items()}
    return digest_arrays(arrays)
