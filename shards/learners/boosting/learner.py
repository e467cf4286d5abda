"""The boosting learner: LightGBM's trees, continued slice by slice.

A constituent has a model of LightGBM for each slice, in LightGBM's own text, whose trees correct what all earlier
ones answer. Each is learned from the data points of the slices so far, in canonical order, so that it follows from
which points there are. Bins, ranges and thresholds in a text are of these points alone.
Shape legend: N points, F features, W outputs of the model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.boosting import BoostingArguments
from shards.learners.boosting.library import boosted, fixed_parameters, lightgbm
from shards.learners.protocol import Learning
from shards.learners.tensors import decode_arrays, digest_arrays, encode_arrays
from shards.lineage import Lineage
from shards.ordering import NOISE, stream
from shards.points import ShardPoints
from shards.schedule import slice_epochs
from shards.specification import ShardId, SliceIndex, TrainingSettings
from shards.targets import Class, Number
from storage.digests import Sha256
from storage.errors import Corrupt

_BASE: Final = "base"
_TREES: Final = re.compile(r"trees/[0-9]{4}/[0-9]{4}")
"""``trees/<number of the text>/<label>``, in the order in which they were learned."""
_SPLIT: Final = re.compile(r"^num_leaves=(?!1$)", re.MULTILINE)
"""Matches a tree with more than one leaf in LightGBM's text."""

_LARGEST_STEP: Final = 10.0
"""Most by which a leaf changes a class's score, before the learning rate. Without a limit, a class that a later slice
brings in is raised so far that its second derivative vanishes, and no tree can correct it."""


@dataclass(frozen=True, slots=True, eq=False)
class BoostedTrees:
    """A constituent."""

    base_W: npt.NDArray[np.float64]
    """The answer without any tree, from the labels up to the slice of the first tree that has a split."""
    texts: tuple[tuple[str, ...], ...] = ()
    """A model for each label; for classes, a single one for all of them. One such group for each slice with points."""
    models: tuple[tuple[Any, ...], ...] = ()
    """The same, read by LightGBM."""


class Boosting:
    """Learns gradient boosted trees. Implements ``Learner[BoostedTrees]``."""

    def __init__(
        self,
        arguments: BoostingArguments,
        inputs: int,
        outputs: int,
        target: str,
        training: TrainingSettings,
        slices: int,
    ) -> None:
        lightgbm()  # raises where it is not installed
        self._inputs = inputs
        self._outputs = outputs
        self._target = target
        self._seed = training.seed
        self._epochs = slice_epochs(training.epochs, slices)
        self._is_one_model = target == Class.kind
        self._scores = 1 if self._is_one_model and outputs == 2 else outputs
        self._parameters = {
            "learning_rate": arguments.learning_rate,
            "num_leaves": arguments.leaves,
            "max_depth": arguments.depth or -1,
            "min_data_in_leaf": arguments.min_leaf,
            "min_gain_to_split": arguments.min_gain,
            "lambda_l1": arguments.l1,
            "lambda_l2": arguments.l2,
            "max_bin": arguments.bins,
            "feature_fraction": arguments.feature_share,
            **self._objective(),
        }

    def initial(self, shard: ShardId) -> BoostedTrees:
        """Return a constituent without trees."""
        del shard
        return BoostedTrees(np.zeros(self._scores))

    def learn(
        self, state: BoostedTrees, points: ShardPoints, shard: ShardId, slice_: SliceIndex
    ) -> Learning[BoostedTrees]:
        """Add a tree per epoch, learned from slices 1..``slice_``; of three classes or more, one for each class."""
        end = points.ends[slice_ - 1]
        if end == 0:
            return state
        features_NF = points.features_NF[:end]
        labels_NW = points.labels_N[:end].reshape(end, -1)
        if not _has_split(state):
            state = BoostedTrees(self._base(labels_NW))
        scores_NW = self._raw(state, features_NF)
        parameters = self._parameters | fixed_parameters(stream(self._seed, shard, slice_, 0, NOISE) >> 33)
        boosters = [
            boosted(parameters, features_NF, labels_N, scores)
            for labels_N, scores in zip(labels_NW.T, [scores_NW] if self._is_one_model else scores_NW.T, strict=True)
        ]
        for epoch in range(self.epochs(slice_)):
            for booster in boosters:
                booster.update()
            yield epoch + 1
        return _with(state, tuple(booster.model_to_string() for booster in boosters))

    def epochs(self, slice_: SliceIndex) -> int:
        """Return how many trees ``learn`` adds for each output."""
        return self._epochs[slice_ - 1]

    def steps(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """Return the same; 0 if there are no data points."""
        return self._epochs[slice_ - 1] if points.ends[slice_ - 1] else 0

    def probabilities(self, state: BoostedTrees, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the outputs, shape (N, W)."""
        raw_NW = self._raw(state, features_NF)
        if self._target == Number.kind:
            return raw_NW
        if self._is_one_model and self._scores > 1:
            shares_NW = np.exp(raw_NW - raw_NW.max(axis=1, keepdims=True))
            softmax_NW: npt.NDArray[np.float64] = shares_NW / shares_NW.sum(axis=1, keepdims=True)
            return softmax_NW
        given_NW = 0.5 + 0.5 * np.tanh(raw_NW / 2)  # never overflows
        return np.concatenate([1 - given_NW, given_NW], axis=1) if self._is_one_model else given_NW

    def digest(self, state: BoostedTrees) -> Sha256:
        """Return the digest of the texts and the base."""
        return digest_arrays(self.arrays(state))

    def arrays(self, state: BoostedTrees) -> dict[str, npt.NDArray[Any]]:
        """Return the content of a checkpoint."""
        texts = {
            f"trees/{number:04d}/{label:04d}": np.frombuffer(text.encode(), dtype=np.uint8)
            for number, group in enumerate(state.texts)
            for label, text in enumerate(group)
        }
        return {_BASE: state.base_W, **texts}

    def to_bytes(self, state: BoostedTrees, lineage: Lineage) -> bytes:
        """Return the checkpoint."""
        return encode_arrays(self.arrays(state), lineage)

    def from_bytes(self, payload: bytes, shard: ShardId) -> BoostedTrees:
        """Return the constituent that a checkpoint holds. Raises ``Corrupt`` when it is not one of this learner."""
        del shard
        try:
            return self._read(decode_arrays(payload))
        except (ValueError, lightgbm().basic.LightGBMError) as error:
            fact = "a checkpoint holds no boosted trees of this model"
            raise Corrupt(fact, "Run 'sisa train' to rebuild it.") from error

    def _read(self, arrays: dict[str, npt.NDArray[Any]]) -> BoostedTrees:
        base_W, each = arrays.pop(_BASE, np.zeros(0)), 1 if self._is_one_model else self._outputs
        fits = base_W.shape == (self._scores,) and base_W.dtype == np.dtype(np.float64)
        if not fits or len(arrays) % each or not all(map(_TREES.fullmatch, arrays)):
            raise ValueError
        texts, state = [arrays[name].tobytes().decode() for name in sorted(arrays)], BoostedTrees(base_W)
        for start in range(0, len(texts), each):
            state = _with(state, tuple(texts[start : start + each]))
        return state

    def _objective(self) -> dict[str, Any]:
        if self._target == Number.kind:
            return {"objective": "regression"}
        if self._is_one_model and self._outputs > 2:
            return {"objective": "multiclass", "num_class": self._outputs, "max_delta_step": _LARGEST_STEP}
        return {"objective": "binary", "max_delta_step": _LARGEST_STEP}

    def _base(self, labels_NW: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the mean label, or the logarithm of each class's share if it had one data point more.

        LightGBM's own start for a class without a data point is too low for later slices to make up for it.
        """
        points = len(labels_NW)
        if self._target == Number.kind:
            return np.array([math.fsum(labels_N) / points for labels_N in labels_NW.T.tolist()])
        if self._is_one_model and self._scores > 1:
            counts = np.bincount(labels_NW[:, 0], minlength=self._outputs)
            return np.array([math.log((count + 1) / (points + self._outputs)) for count in counts.tolist()])
        given = [int(count) for count in (labels_NW > 0).sum(axis=0)]
        return np.array([math.log((count + 1) / (points - count + 1)) for count in given])

    def _raw(self, state: BoostedTrees, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the scores before they become answers, shape (N, W); a single one for two classes."""
        raw_NW = np.tile(state.base_W, (len(features_NF), 1))
        if len(features_NF):
            for part_NW in self._parts(state, features_NF):
                raw_NW += part_NW
        return raw_NW

    def _parts(self, state: BoostedTrees, features_NF: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float64]]:
        for group in state.models:
            parts = [model.predict(features_NF, raw_score=True, num_threads=1) for model in group]
            yield np.column_stack(parts)


def _has_split(state: BoostedTrees) -> bool:
    """Return whether any tree has a split: without one, all of them add 0."""
    return any(_SPLIT.search(text) for group in state.texts for text in group)


def _with(state: BoostedTrees, texts: tuple[str, ...]) -> BoostedTrees:
    """Return the constituent with these further models."""
    models = tuple(lightgbm().Booster(model_str=text) for text in texts)
    return replace(state, texts=(*state.texts, texts), models=(*state.models, models))
