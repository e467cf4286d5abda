"""What changed between two states of a shard's slices, as data points.

Shape legend: N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.points import PointBlock, ShardPoints, scaled
from shards.routing import DIGEST_BYTES
from shards.slices.contents import content_digests
from shards.slices.files import SliceRecord, point_keys, read_part
from shards.tombstones import sortable
from storage.objects import ObjectStore


def changed_points(
    store: ObjectStore,
    old: Sequence[SliceRecord],
    new: Sequence[SliceRecord],
    width: int,
    scale: float | tuple[float, ...],
) -> tuple[ShardPoints, ShardPoints]:
    """Return the points that only the old slices hold, and those that only the new ones hold, as one slice each.

    A point whose content changed is among both. Only slices that differ are read. Raises ``Corrupt`` as ``read_part``
    does.
    """
    gone, added = [], []
    for before, after in zip(old, new, strict=True):
        if before.content_digest == after.content_digest:
            continue
        shared = {part.key for part in before.parts} & {part.key for part in after.parts}
        was, now = (
            [read_part(store, part) for part in each.parts if part.key not in shared] for each in (before, after)
        )
        contents = [[content_digests(block) for block in blocks] for blocks in (was, now)]
        gone += _outside(was, contents[0], contents[1])
        added += _outside(now, contents[1], contents[0])
    return _as_shard(gone, width, scale), _as_shard(added, width, scale)


_Contents = Sequence[npt.NDArray[np.bytes_]]
"""Digests of contents, an array for each block."""


def _outside(blocks: Sequence[PointBlock], own: _Contents, others: _Contents) -> list[PointBlock]:
    """Return the points whose content is not among the ``others``."""
    known = np.concatenate([np.empty(0, dtype=f"S{DIGEST_BYTES}"), *others])
    return [block.take(~np.isin(contents, known)) for block, contents in zip(blocks, own, strict=True)]


def _as_shard(blocks: Sequence[PointBlock], width: int, scale: float | tuple[float, ...]) -> ShardPoints:
    """Return the points as a shard of one slice, in canonical order within it."""
    blocks = [block for block in blocks if len(block)]
    if not blocks:
        return ShardPoints(
            features_NF=np.empty((0, width), dtype=np.float32),
            labels_N=np.empty(0, dtype=np.int64),
            keys_N=np.empty(0, dtype=np.uint64),
            subjects_N=np.empty(0, dtype=np.uint64),
            ends=(0,),
        )
    points, subjects = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("points_N", "subjects_N")
    )
    order = np.argsort(sortable(points), kind="stable")
    features: Any = np.concatenate([block.features_NF for block in blocks])[order]
    labels = np.concatenate([block.labels_N for block in blocks])[order]
    return ShardPoints(
        features_NF=scaled(features, scale),
        labels_N=labels.astype(np.int64) if labels.ndim == 1 else labels.astype(np.float32, copy=False),
        keys_N=point_keys(points[order]),
        subjects_N=point_keys(subjects[order]),
        ends=(len(order),),
    )
