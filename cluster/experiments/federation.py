"""A whole federation in one process, for measurements: the real engine, store and trainer, without Ray.

Everything but the workers' processes is that of any federation: routing by keyed digest, slices, checkpoints after each
slice, journal, quarantine, retraining from the affected slice, purge.
Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from cluster.config.specification import FederationSpecification, specification_from
from cluster.ensemble.loaded import Ensemble
from cluster.writer.one_process import NEW_NAMING, OneProcessFederation, Spent
from coordinator.state import FederationState
from shards.data.arrays import MATRIX, column_of, features_of
from shards.data.sources import Source, table_source
from shards.routing import PartitionKey, slice_of, subject_digest
from shards.specification import PartitionSettings, ShardId
from shards.tombstones import DigestSet
from storage.digests import Sha256
from storage.objects import ObjectStore
from storage.stores.memory import MemoryStore

KEY: Final = PartitionKey(b"the laboratory's partition key..")
NAMING: Final = NEW_NAMING

_WORLDS = count()


def key_of_round(number: int) -> PartitionKey:
    """Return the partition key of a repetition: each routes the same data points elsewhere."""
    return PartitionKey(b"the laboratory's key, round %04d" % number)


def places_by_name(names: Iterable[str], partition: PartitionSettings, key: PartitionKey) -> list[tuple[int, int]]:
    """Return the shard (from 0) and slice (from 1) in which each person's data points are."""
    found = (slice_of(subject_digest(key, name, NAMING), partition.shards, partition.slices, NAMING) for name in names)
    return [(each.shard, each.slice) for each in found]


class OwnFederation:
    """A federation over arrays, whose data points are persons of their own, named by their row: "0", "1", ..."""

    def __init__(
        self,
        features_NF: npt.NDArray[np.float32],
        labels_N: npt.NDArray[np.int64],
        *,
        classes: int,
        tables: Mapping[str, Mapping[str, Any]],
        rows: npt.NDArray[np.int64] | None = None,
        key: PartitionKey = KEY,
        store: ObjectStore | None = None,
    ) -> None:
        """``tables`` are those of a specification, such as model, training and partition.

        ``rows`` names the data points by their rows elsewhere (default: here), so that a federation of the remaining
        data points names each as the one with all of them did. ``store`` is an empty one; default: in memory, and not
        encrypted. Raises ``Invalid`` as a specification does.
        """
        named = np.arange(len(labels_N)) if rows is None else rows
        self._key = key
        self.source = _source(features_NF, labels_N, named)
        self.specification = _specification(classes, tables)
        self._memory = MemoryStore(f"laboratory-{next(_WORLDS)}")
        self.store = self._memory if store is None else store
        self._own = OneProcessFederation(self.specification, key, self.store)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._memory.forget()

    def train(self) -> Spent:
        """Ingest and train on all data points that were not erased; the time is that of training alone."""
        self._own.ingest(self.source)
        return self._own.train()

    def erase(self, rows: Sequence[int]) -> Spent:
        """Erase these data points with one request."""
        return self._own.erase(self._names(rows))

    def _names(self, rows: Sequence[int]) -> DigestSet:
        return DigestSet.of(subjects=(subject_digest(self._key, str(row), NAMING) for row in rows), points=())

    def probabilities(self, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the ensemble's scores, shape (N, C)."""
        return Ensemble.load(self.store, self._own.state, self.specification).answer(features_NF)

    def constituents(self) -> tuple[Any, ...]:
        """Return the learner's states, one for each shard that has data points."""
        return Ensemble.load(self.store, self._own.state, self.specification).constituents

    def constituent_probabilities(self, shard: int, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return what one shard's constituent answers. Raises ``KeyError`` when the shard is empty."""
        found = Ensemble.load(self.store, self._own.state, self.specification)
        states = {each: state for (each, _), state in zip(found.checkpoints, found.constituents, strict=True)}
        answers: npt.NDArray[np.float64] = found.learner.probabilities(states[ShardId(shard)], features_NF)
        return answers

    def places(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return the shard (from 0) and slice (from 1) of each data point."""
        return places_by_name([str(row) for row in rows], self.specification.partition, self._key)

    @property
    def state(self) -> FederationState:
        """The coordinator's state."""
        return self._own.state

    @property
    def digests(self) -> tuple[Sha256 | None, ...]:
        """The digest of each shard's constituent: equal ones are equal to the byte."""
        return tuple(shard.chain[-1].digest if shard.chain else None for shard in self._own.state.shards)

    @property
    def checkpoint_bytes(self) -> int:
        """Size of all checkpoints in the store."""
        return sum(each.payload_bytes for each in self.store.list("shards/") if "/checkpoints/" in each.key)


def _source(
    features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64], rows_N: npt.NDArray[np.int64]
) -> Source:
    table, _ = features_of(features_NF)
    names = column_of([str(row) for row in rows_N], "rows", len(labels_N))
    table = table.append_column("id", names)
    return table_source(table.append_column("label", column_of([str(each) for each in labels_N], "labels", len(names))))


def _specification(classes: int, tables: Mapping[str, Mapping[str, Any]]) -> FederationSpecification:
    data = {
        "train": "memory",
        "id": "id",
        "label": "label",
        "features": [MATRIX],
        "classes": [str(number) for number in range(classes)],
    }
    given = {name: dict(table) for name, table in tables.items()}
    return specification_from(
        {"name": "laboratory", "store": "memory", **given, "data": data | given.get("data", {})}, Path.cwd()
    )
