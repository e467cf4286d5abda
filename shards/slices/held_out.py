"""Hold-out points, read from their slices in order to measure an ensemble. Shape legend: N points, F features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from shards.data.prediction_files import FeatureBatch
from shards.points import scaled
from shards.slices.files import SliceRecord, read_part
from storage.objects import ObjectStore

_BATCH_BYTES: Final = 8 << 20
_FEATURE_BYTES: Final = 4


def labelled_batches(
    store: ObjectStore, slices: Iterable[SliceRecord], scale: float | tuple[float, ...]
) -> Iterator[FeatureBatch]:
    """Yield the data points of the slices in blocks, with their labels, and with features as in training.

    Raises ``Corrupt`` when a slice file is missing or damaged.
    """
    for part in (part for record in slices for part in record.parts):
        block = read_part(store, part)
        at_once = max(1, _BATCH_BYTES // (_FEATURE_BYTES * block.features_NF.shape[1]))
        for start in range(0, len(block), at_once):
            some = slice(start, start + at_once)
            yield FeatureBatch(
                ids=None, labels_N=block.labels_N[some], features_NF=scaled(block.features_NF[some], scale)
            )
