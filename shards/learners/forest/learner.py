"""The forest as a constituent: exact to the byte, in any order of erasures.

Shape legend: N points, F features, C outputs, T trees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import partial
from math import ceil
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.forest import ForestArguments
from shards.learners.fixed_point import UNIT, fixed
from shards.learners.forest.growing import Grower, Rows
from shards.learners.forest.trees import Tree
from shards.learners.protocol import Learning
from shards.learners.tensors import decode_arrays, digest_arrays, encode_arrays
from shards.lineage import Lineage
from shards.ordering import mixed, stream
from shards.points import ShardPoints
from shards.specification import ShardId, SliceIndex
from shards.targets import Class
from storage.digests import Sha256

_TREE_FIELDS: Final = tuple(each.name for each in fields(Tree))
_DRAWS_AT_ONCE: Final = 1 << 22
_SUBJECTS: Final = b"trees"


@dataclass(slots=True, eq=False)
class Grown:
    """A forest."""

    trees: tuple[Tree, ...] = field(repr=False)
    shard: ShardId
    """Its draws are keyed by it."""


class Forest:
    """Learns a keyed forest. Implements ``Learner[Grown]`` and ``Unlearner[Grown]``."""

    def __init__(self, arguments: ForestArguments, inputs: int, outputs: int, target: str, seed: int) -> None:
        self._arguments = arguments
        self._inputs = inputs
        self._outputs = outputs
        self._classes = outputs if target == Class.kind else 0
        self._seed = seed
        self.looked_at = [0]
        """How many rows were looked at, counted once for each node; for measurements."""

    def initial(self, shard: ShardId) -> Grown:
        """Return the forest of no data points: each tree is a leaf."""
        grower = self._grower(shard)
        return Grown((grower.nothing(),) * self._arguments.trees, shard)

    def learn(self, state: Grown, points: ShardPoints, shard: ShardId, slice_: SliceIndex) -> Learning[Grown]:
        """Return the forest of all data points of the shard, which are one slice to it."""
        del state, slice_
        grower, rows = self._grower(shard), self.rows(points)
        trees = []
        for number, members in enumerate(self.members(points, shard)):
            trees.append(grower.grow(number, rows if members is None else rows.take(members)))
            yield number + 1
        return Grown(tuple(trees), shard)

    def unlearn(self, state: Grown, gone: ShardPoints, new: ShardPoints, left: Callable[[], ShardPoints]) -> Grown:
        """Return the forest without ``gone`` and with ``new``: only nodes with these points change, and some below."""
        grower, rows = self._grower(state.shard), [self.rows(gone), self.rows(new)]
        members = zip(self.members(gone, state.shard), self.members(new, state.shard), strict=True)
        remaining = _Remaining(self, state.shard, left)
        trees = []
        for number, (tree, own) in enumerate(zip(state.trees, members, strict=True)):
            parts = [each if mask is None else each.take(mask) for each, mask in zip(rows, own, strict=True)]
            if any(map(len, parts)):
                trees.append(grower.change(number, tree, parts[0], parts[1], partial(remaining.rows, number)))
            else:
                trees.append(tree)
        return Grown(tuple(trees), state.shard)

    def epochs(self, slice_: SliceIndex) -> int:
        """Return the number of trees: progress is reported after each of them."""
        del slice_
        return self._arguments.trees

    def steps(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """Return the number of data points."""
        return points.ends[slice_ - 1]

    def probabilities(self, state: Grown, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the mean of the trees' answers, shape (N, C): shares of classes, or means of numbers."""
        total = np.zeros((len(features_NF), self._outputs))
        counted = 0
        for tree in state.trees:
            if not tree.stats_MS[0].any():
                continue  # a tree without a data point has no vote
            stats_NS = tree.votes(features_NF)
            if self._classes:
                total += stats_NS / stats_NS.sum(axis=1, keepdims=True)
            else:
                total += stats_NS[:, 1:] / stats_NS[:, :1] / UNIT
            counted += 1
        return total / max(counted, 1)

    def digest(self, state: Grown) -> Sha256:
        """Return the digest of all nodes."""
        return digest_arrays(self.arrays(state))

    def to_bytes(self, state: Grown, lineage: Lineage) -> bytes:
        """Return the checkpoint."""
        return encode_arrays(self.arrays(state), lineage)

    def from_bytes(self, payload: bytes, shard: ShardId) -> Grown:
        """Return the forest that a checkpoint holds."""
        arrays = decode_arrays(payload)
        nodes, splits = (np.cumsum(arrays.pop(name)).tolist() for name in ("nodes", "splits"))
        trees = []
        for number in range(len(nodes)):
            parts = {}
            for name in _TREE_FIELDS:
                ends = splits if "_I" in name else nodes
                parts[name] = arrays[name][ends[number - 1] if number else 0 : ends[number]]
            parts["left_IPKS"] = parts["left_IPKS"].astype(np.int64)
            trees.append(Tree(**parts))
        return Grown(tuple(trees), shard)

    def arrays(self, state: Grown) -> dict[str, npt.NDArray[Any]]:
        """Return what a checkpoint holds."""
        pad = self._grower(state.shard)
        empty = Tree.of((), pad.attributes, self._arguments.candidates, pad.width)
        joined = {
            name: np.concatenate([getattr(tree, name) for tree in (empty, *state.trees)]) for name in _TREE_FIELDS
        }
        if self._classes:
            joined["left_IPKS"] = joined["left_IPKS"].astype(np.int32)  # counts
        return joined | {
            "nodes": np.array([len(tree.paths_M) for tree in state.trees], dtype=np.int64),
            "splits": np.array([len(tree.last_I) for tree in state.trees], dtype=np.int64),
        }

    def rows(self, points: ShardPoints) -> Rows:
        """Return the data points as trees see them."""
        labels: Any = points.labels_N
        if not self._classes:
            labels = fixed(labels.reshape(len(points.keys_N), self._outputs), "label")
        return Rows(points.features_NF, labels, points.keys_N)

    def _grower(self, shard: ShardId) -> Grower:
        return Grower(
            arguments=self._arguments,
            material=self._seed.to_bytes(8, "big") + int(shard).to_bytes(4, "big"),
            inputs=self._inputs,
            classes=self._classes,
            outputs=self._outputs,
            looked_at=self.looked_at,
        )

    def members(self, points: ShardPoints, shard: ShardId) -> Iterator[npt.NDArray[np.bool_] | None]:
        """Yield for each tree which points it learns from; None: from all.

        Each subject is in a fixed number of trees: those with the smallest draws for it.
        """
        count, most = self._arguments.trees, ceil(self._arguments.share * self._arguments.trees)
        if most == count:
            yield from [None] * count
            return
        draws = [stream(self._seed, shard, SliceIndex(0), number, _SUBJECTS) for number in range(count)]
        mask_NT = np.empty((len(points.subjects_N), count), dtype=np.bool_)
        step = max(1, _DRAWS_AT_ONCE // count)
        for start in range(0, len(mask_NT), step):
            subjects = points.subjects_N[start : start + step]
            each_NT = np.stack([mixed(subjects, number) for number in draws], axis=1)
            mask_NT[start : start + step] = each_NT <= np.partition(each_NT, most - 1, axis=1)[:, most - 1 : most]
        for number in range(count):
            yield mask_NT[:, number]


class _Remaining:
    """The points that are left, read and divided among the trees when the first tree asks."""

    def __init__(self, forest: Forest, shard: ShardId, left: Callable[[], ShardPoints]) -> None:
        self._forest = forest
        self._shard = shard
        self._left = left
        self._read: tuple[Rows, list[npt.NDArray[np.bool_] | None]] | None = None

    def rows(self, number: int) -> Rows:
        """Return the rows of a tree."""
        if self._read is None:
            points = self._left()
            self._read = self._forest.rows(points), list(self._forest.members(points, self._shard))
        rows, members = self._read
        own = members[number]
        return rows if own is None else rows.take(own)
