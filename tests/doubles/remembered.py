"""Caches for pure functions, so that thousands of small simulations compute their common results once.

Only for functions from bytes or frozen values to values that are never modified; a dictionary is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Final
from unittest.mock import patch

import numpy as np

from shards.points import PointBlock
from shards.routing import DIGEST_BYTES
from shards.slices import files as dataset
from storage import objects
from storage import records as sealed
from storage.digests import Json
from storage.objects import ObjectKey
from storage.registers import journal, manifest, record

_MOST: Final = 20_000

_is_object_key = lru_cache(_MOST)(objects.is_object_key)
_unseal = lru_cache(_MOST)(sealed.decode_record)
_decode_part = lru_cache(_MOST)(dataset.decode_part)
_read_columns = lru_cache(_MOST)(dataset._read_columns)
_encode_part = dataset.encode_part


def decode_record(payload: bytes, key: ObjectKey, names: frozenset[str]) -> dict[str, Json]:
    """Return what ``storage.records.decode_record`` returns."""
    return dict(_unseal(payload, key, names))


def encode_part(block: PointBlock) -> bytes:
    """Return what ``shards.slices.files.encode_part`` returns."""
    features = block.features_NF
    arrays = (block.points_N, block.subjects_N, block.labels_N, features, block.further_NK)
    columns = tuple(array.tobytes() for array in arrays)
    return _encoded(*columns, features.dtype.name, features.shape[1], block.further_NK.shape[1])


@lru_cache(_MOST)
def _encoded(
    points: bytes, subjects: bytes, labels: bytes, features: bytes, further: bytes, dtype: str, width: int, others: int
) -> bytes:
    return _encode_part(
        PointBlock(
            points_N=np.frombuffer(points, dtype=f"V{DIGEST_BYTES}"),
            subjects_N=np.frombuffer(subjects, dtype=f"V{DIGEST_BYTES}"),
            labels_N=np.frombuffer(labels, dtype=np.int32),
            features_NF=np.frombuffer(features, dtype=dtype).reshape(-1, width),
            further_NK=np.frombuffer(further, dtype=f"V{DIGEST_BYTES}").reshape(len(points) // DIGEST_BYTES, others),
        )
    )


@contextmanager
def remembering() -> Iterator[None]:
    """Make the product use the cached functions within the block."""
    with ExitStack() as stack:
        for module in (journal, manifest, record):
            stack.enter_context(patch.object(module, "decode_record", decode_record))
        stack.enter_context(patch.object(objects, "is_object_key", _is_object_key))
        stack.enter_context(patch.object(dataset, "_read_columns", _read_columns))
        stack.enter_context(patch.object(dataset, "decode_part", _decode_part))
        stack.enter_context(patch.object(dataset, "encode_part", encode_part))
        yield
