"""The forest as a constituent: exact to the byte, in any order of erasures.

Shape legend: N points, F features, C outputs, T trees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.forest import ForestArguments
from shards.learners.fixed_point import UNIT, Integers, fixed
from shards.learners.forest.changing import ForestChange
from shards.learners.forest.choosing import KEEPS_FROM, Chooser
from shards.learners.forest.growing import grown
from shards.learners.forest.nodes import NAMES, ROOT, Nodes, join_nodes
from shards.learners.forest.rows import Places, Rows
from shards.learners.protocol import Learning
from shards.learners.tensors import (
    Tensors,
    check_enough,
    check_expected,
    decode_arrays,
    digest_arrays,
    encode_arrays,
    not_serving,
)
from shards.lineage import Lineage
from shards.ordering import mixed, stream
from shards.points import ShardPoints
from shards.specification import ShardId, SliceIndex
from shards.targets import Class
from storage.digests import Sha256
from storage.errors import Corrupt

_STORED: Final = tuple(name for name in NAMES if name not in {"trees_M", "kept_M"})
"""The arrays of a checkpoint; the others follow from them."""
_SERVED: Final = ("trees_M", "paths_M", "attribute_M", "threshold_M")
"""The arrays of the part that serves, besides the leaves' answers."""
_DRAWS_AT_ONCE: Final = 1 << 22
_ROWS_AT_ONCE: Final = 1 << 18
_FEW: Final = 2
"""Up to this part of a shard's points, their trees are drawn for them alone."""
_SUBJECTS: Final = b"trees"


@dataclass(slots=True, eq=False)
class Grown:
    """A forest."""

    nodes: Nodes = field(repr=False)
    """The nodes of all trees."""
    shard: ShardId
    """Its draws are keyed by it."""
    serves: bool = False
    """Whether it is the part that serves: leaves have answers in place of statistics, and other nodes have none."""


class Forest:
    """Learns a keyed forest. Implements ``Learner[Grown]`` and ``Unlearner[Grown]``."""

    def __init__(
        self,
        arguments: ForestArguments,
        inputs: int,
        outputs: int,
        target: str,
        seed: int,
        *,
        keeps_from: int = KEEPS_FROM,
    ) -> None:
        self._arguments = arguments
        self._inputs = inputs
        self._outputs = outputs
        self._classes = outputs if target == Class.kind else 0
        self._seed = seed
        self._keeps_from = keeps_from
        self.looked_at = [0]
        """How many rows were looked at, counted once for each node; for measurements."""

    def initial(self, shard: ShardId) -> Grown:
        """Return the forest of no data points: each tree is a leaf."""
        chooser, trees = self._chooser(shard), self._arguments.trees
        roots = Places.roots(np.arange(trees), [], None)
        return Grown(chooser.leaves(roots, np.zeros((trees, chooser.width), dtype=np.int64)), shard)

    def learn(self, state: Grown, points: ShardPoints, shard: ShardId, slice_: SliceIndex) -> Learning[Grown]:
        """Return the forest of all data points of the shard, which are one slice to it."""
        del state, slice_
        chooser, rows, parts = self._chooser(shard), self.rows(points), []
        for trees, members in self._in_groups(self.members(points, shard), len(rows)):
            parts.append(grown(chooser, rows, Places.roots(trees, members, chooser.whole_boxes(len(trees)))))
            yield int(trees[-1]) + 1
        return Grown(join_nodes(parts), shard)

    def unlearn(self, state: Grown, gone: ShardPoints, new: ShardPoints, left: Callable[[], ShardPoints]) -> Grown:
        """Return the forest without ``gone`` and with ``new``: only nodes with these points change, and some below."""
        chooser, gone_rows, new_rows = self._chooser(state.shard), self.rows(gone), self.rows(new)
        remaining = _Remaining(self, state.shard, left)
        members = list(self.members(new, state.shard))
        nodes = state.nodes
        for trees, going in self._in_groups(self.members(gone, state.shard), len(gone_rows) + len(new_rows)):
            coming, boxes = [members[tree] for tree in trees], chooser.whole_boxes(len(trees))
            gone_roots, new_roots = (Places.roots(trees, each, boxes) for each in (going, coming))
            changes_J = (gone_roots.sizes_J > 0) | (new_roots.sizes_J > 0)
            change = ForestChange(chooser, nodes, remaining)
            nodes = change.changed(gone_rows, gone_roots.take(changes_J), new_rows, new_roots.take(changes_J))
        return Grown(nodes, state.shard)

    def _in_groups(self, members: Iterator[Integers], rows: int) -> Iterator[tuple[Integers, list[Integers]]]:
        """Yield the trees, several at a time if they have few rows."""
        each = max(1, _ROWS_AT_ONCE // max(1, rows))
        for start in range(0, self._arguments.trees, each):
            own = list(islice(members, each))
            yield np.arange(start, start + len(own)), own

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
        for tree in np.flatnonzero(np.bincount(state.nodes.trees_M)).tolist():
            found_N = state.nodes.votes(tree, features_NF)
            if not state.serves:
                if not found_N.any():
                    continue  # a tree without a data point has no vote
                found_N = self._answers(found_N)
            total += found_N
            counted += 1
        return total / max(counted, 1)

    def _answers(self, stats_NS: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        answers_NC: npt.NDArray[np.float64] = (
            stats_NS / stats_NS.sum(axis=1, keepdims=True)
            if self._classes
            else stats_NS[:, 1:] / stats_NS[:, :1] / UNIT
        )
        return answers_NC

    def to_serving(self, state: Grown) -> Tensors:
        """Return the splits, and the answers of leaves without their counts; trees without data points are left out."""
        nodes = state.nodes.without_candidates()
        counts_M = self._chooser(state.shard).count(nodes.stats_MS)
        is_leaf_M = nodes.attribute_M < 0
        check_enough(counts_M[is_leaf_M], "a leaf of a tree")
        empty = nodes.trees_M[(nodes.paths_M == ROOT) & (counts_M == 0)]
        stays_M = ~np.isin(nodes.trees_M, empty)
        answers_MC = np.zeros((len(nodes), self._outputs))
        at = is_leaf_M & stays_M
        answers_MC[at] = self._answers(nodes.stats_MS[at])
        return {"answers": answers_MC[stays_M], **{name: getattr(nodes, name)[stays_M] for name in _SERVED}}

    def from_serving(self, arrays: Tensors) -> Grown:
        """Return the same as what answers."""
        empty = self.initial(ShardId(0)).nodes.without_candidates()
        kinds = {"answers": np.zeros((1, self._outputs)), **{name: getattr(empty, name) for name in _SERVED}}
        if arrays.keys() != kinds.keys():
            raise not_serving()
        nodes = len(arrays["answers"])
        check_expected(arrays, {name: np.resize(each, (nodes, *each.shape[1:])) for name, each in kinds.items()})
        own = {name: arrays[name] for name in _SERVED}
        found = replace(empty, **own, stats_MS=arrays["answers"], kept_M=np.zeros(nodes, dtype=np.bool_))
        trees_M = found.trees_M
        if not ((trees_M >= 0) & (trees_M < self._arguments.trees)).all() or not found.are_trees():
            raise not_serving()
        if (found.attribute_M >= self._inputs).any():
            raise not_serving()
        return Grown(found, ShardId(0), serves=True)

    def for_answers(self, state: Grown) -> Grown:
        """Return the forest without the candidates of its splits, which are most of it."""
        return Grown(state.nodes.without_candidates(), state.shard)

    def digest(self, state: Grown) -> Sha256:
        """Return the digest of all nodes."""
        return digest_arrays(self.arrays(state))

    def to_bytes(self, state: Grown, lineage: Lineage) -> bytes:
        """Return the checkpoint."""
        return encode_arrays(self.arrays(state), lineage)

    def from_bytes(self, payload: bytes, shard: ShardId) -> Grown:
        """Return the forest that a checkpoint holds."""
        return Grown(self._checked(decode_arrays(payload)), shard)

    def arrays(self, state: Grown) -> dict[str, npt.NDArray[Any]]:
        """Return the content of a checkpoint."""
        counts = np.bincount(state.nodes.trees_M, minlength=self._arguments.trees)
        return {name: getattr(state.nodes, name) for name in _STORED} | {"nodes": counts.astype(np.int64)}

    def _checked(self, arrays: dict[str, npt.NDArray[Any]]) -> Nodes:
        """Return the nodes that these arrays are. Raises ``Corrupt`` when they are not those of a forest like this."""
        chooser = self._chooser(ShardId(0))
        expected = self.arrays(self.initial(ShardId(0)))
        kinds = ({name: (each.dtype, each.shape[1:]) for name, each in some.items()} for some in (arrays, expected))
        if len(set(map(repr, map(sorted, (each.items() for each in kinds))))) > 1:
            raise _other_forest()
        counts, attribute_M = arrays.pop("nodes"), arrays["attribute_M"]
        nodes, trees = len(attribute_M), self._arguments.trees
        if len(counts) != trees or (counts < 1).any() or counts.sum() != nodes:
            raise _other_forest()
        if any(len(arrays[name]) != nodes for name in _STORED if "_M" in name):
            raise _other_forest()
        kept_M = (attribute_M >= 0) & (chooser.count(arrays["stats_MS"]) >= self._keeps_from)
        if any(len(arrays[name]) != kept_M.sum() for name in _STORED if "_I" in name):
            raise _other_forest()
        found = Nodes(trees_M=np.repeat(np.arange(trees, dtype=np.int32), counts), kept_M=kept_M, **arrays)
        if not found.are_trees() or (attribute_M >= self._inputs).any() or (found.attributes_IP >= self._inputs).any():
            raise _other_forest()
        return found

    def rows(self, points: ShardPoints) -> Rows:
        """Return the data points as trees see them."""
        labels: Any = points.labels_N
        if not self._classes:
            labels = fixed(labels.reshape(len(points.keys_N), self._outputs), "label")
        return Rows(points.features_NF, labels, points.keys_N)

    def _chooser(self, shard: ShardId) -> Chooser:
        return Chooser(
            arguments=self._arguments,
            material=self._seed.to_bytes(8, "big") + int(shard).to_bytes(4, "big"),
            inputs=self._inputs,
            classes=self._classes,
            outputs=self._outputs,
            keeps_from=self._keeps_from,
            looked_at=self.looked_at,
        )

    def members(self, points: ShardPoints, shard: ShardId) -> Iterator[Integers]:
        """Yield for each tree the positions of the points that it learns from.

        Each subject is in a fixed number of trees: those with the smallest draws for it.
        """
        count, most = self._arguments.trees, self._arguments.trees_each
        if most == count:
            yield from [np.arange(len(points.keys_N))] * count
            return
        mask_NT = np.empty((len(points.subjects_N), count), dtype=np.bool_)
        step = max(1, _DRAWS_AT_ONCE // count)
        for start in range(0, len(mask_NT), step):
            mask_NT[start : start + step] = self.chosen_trees(points.subjects_N[start : start + step], shard)
        for number in range(count):
            yield np.flatnonzero(mask_NT[:, number])

    def chosen_trees(self, subjects_N: npt.NDArray[np.uint64], shard: ShardId) -> npt.NDArray[np.bool_]:
        """Return which trees learn from each subject, shape (N, T)."""
        count, most = self._arguments.trees, self._arguments.trees_each
        if most == count:
            return np.ones((len(subjects_N), count), dtype=np.bool_)
        draws = [stream(self._seed, shard, SliceIndex(0), number, _SUBJECTS) for number in range(count)]
        each_NT = np.stack([mixed(subjects_N, number) for number in draws], axis=1)
        chosen: npt.NDArray[np.bool_] = each_NT <= np.partition(each_NT, most - 1, axis=1)[:, most - 1 : most]
        return chosen


class _Remaining:
    """The points that are left, read when a node asks for the first time. Implements ``Remaining``."""

    def __init__(self, forest: Forest, shard: ShardId, left: Callable[[], ShardPoints]) -> None:
        self._forest = forest
        self._shard = shard
        self._left = left

    @cached_property
    def _points(self) -> ShardPoints:
        return self._left()

    @cached_property
    def _rows(self) -> Rows:
        return self._forest.rows(self._points)

    @property
    def rows(self) -> Rows:
        """The rows."""
        return self._rows

    def of_tree(self, tree: int, at: Integers) -> Integers:
        """Return those of these positions that the tree has."""
        is_few = len(at) <= len(self.rows) // _FEW
        subjects_N = self._points.subjects_N
        chosen_NT = self._forest.chosen_trees(subjects_N[at], self._shard) if is_few else self._chosen[at]
        found: Integers = at[chosen_NT[:, tree]]
        return found

    @cached_property
    def _chosen(self) -> npt.NDArray[np.bool_]:
        return self._forest.chosen_trees(self._points.subjects_N, self._shard)


def _other_forest() -> Corrupt:
    return Corrupt("a checkpoint's arrays are not those of this forest", "Run 'sisa train' to rebuild it.")
