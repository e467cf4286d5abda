"""Which data points that an ensemble is evaluated on were trained on.

A data point was trained on if a slice holds it: the same id, label and features. An id alone says little, since many
files number their rows. An erased data point is in no slice, and counts like one that was never there.
Shape legend: N points, F features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shards.data.prediction_files import FeatureBatch
from shards.points import scaled
from shards.routing import DIGEST_BYTES, PartitionKey, point_digest
from shards.slices.files import SliceRecord, read_part
from shards.targets import LabelArray
from shards.tombstones import sortable
from storage.objects import ObjectStore

_Digests = npt.NDArray[np.bytes_]

MOST_BYTES = 256 << 20
"""Of slice files that are read for one evaluation; one of them always is. A keyed hash puts people into slices, so that
some slices are like the others: a training file is noticed, however large it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedOn:
    """How many of the data points evaluated were trained on."""

    points: int
    searched: float
    """Share of the training data that was compared. Below 1, further points may have been trained on."""


@dataclass(slots=True)
class Evaluated:
    """Keyed digests of data points that are evaluated: of their ids, and of their ids with labels and features."""

    key: PartitionKey = field(repr=False)
    _ids: list[_Digests] = field(default_factory=list)
    _contents: list[_Digests] = field(default_factory=list)

    def add(self, batch: FeatureBatch) -> None:
        """Note the data points of a batch; those without ids, or without labels, cannot be compared."""
        texts = batch.id_texts()
        if texts is None or batch.labels_N is None:
            return
        ids_N = _joined(point_digest(self.key, text) for text in texts)
        self._ids.append(ids_N)
        self._contents.append(_contents(ids_N, batch.labels_N, batch.features_NF))

    def trained_on(
        self,
        store: ObjectStore,
        slices: Iterable[SliceRecord],
        scale: float | tuple[float, ...],
        most_bytes: int = MOST_BYTES,
    ) -> TrainedOn | None:
        """Return how many of them are in these slices, whose features are divided by ``scale``.

        None: they have no ids. Raises ``Corrupt`` where a slice file is missing or damaged.
        """
        if not self._ids:
            return None
        ids = np.unique(np.concatenate(self._ids))
        parts = [part for record in slices for part in record.parts]
        read, left, found = 0, most_bytes, [np.empty(0, dtype=f"S{DIGEST_BYTES}")]
        for part in parts:
            if read and part.payload_bytes > left:
                break
            left -= part.payload_bytes
            read += part.points
            block = read_part(store, part)
            block = block.take(np.isin(sortable(block.points_N), ids))
            if len(block):
                features_NF = scaled(block.features_NF, scale)
                found.append(_contents(sortable(block.points_N), block.labels_N, features_NF))
        known = np.isin(np.concatenate(self._contents), np.concatenate(found))
        total = sum(part.points for part in parts)
        return TrainedOn(points=int(known.sum()), searched=read / total if total else 1.0)


def _contents(ids_N: _Digests, labels_N: LabelArray, features_NF: npt.NDArray[np.float32]) -> _Digests:
    heads = ids_N.view(f"V{DIGEST_BYTES}")
    rows = zip(heads, labels_N, features_NF, strict=True)
    return _joined(
        hashlib.blake2b(
            b"".join((head.tobytes(), label.tobytes(), features.tobytes())), digest_size=DIGEST_BYTES
        ).digest()
        for head, label, features in rows
    )


def _joined(digests: Iterable[bytes]) -> _Digests:
    return np.frombuffer(b"".join(digests), dtype=f"S{DIGEST_BYTES}")
