"""Constituents that are NumPy arrays: their digest and their checkpoint, in the layout of ``torch.checkpoint``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from shards.lineage import Lineage
from storage.digests import Sha256, canonical_json
from storage.errors import Corrupt

Tensors = Mapping[str, npt.NDArray[Any]]
"""By name."""

_MODEL: Final = "model/"


def digest_arrays(arrays: Tensors) -> Sha256:
    """Return the SHA-256 over all arrays in the order of their names, as ``digest_tensors`` computes it of tensors."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(canonical_json([name, array.dtype.name, list(array.shape)]) + b"\n")
        digest.update(_little(array).tobytes())
    return Sha256(digest.hexdigest())


def encode_arrays(arrays: Tensors, lineage: Lineage) -> bytes:
    """Return the checkpoint's bytes; the same arrays give the same bytes."""
    plain = {_MODEL + name: _little(array) for name, array in arrays.items()}
    return save(plain, metadata={"lineage": canonical_json(lineage.record()).decode()})


def decode_arrays(payload: bytes, expected: Tensors | None = None) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a checkpoint, with the names, shapes and types of ``expected`` if these are known.

    Raises ``Corrupt`` when ``payload`` holds others, or is not a checkpoint.
    """
    try:
        found = {name.removeprefix(_MODEL): array for name, array in load(payload).items()}
    except (SafetensorError, ValueError, KeyError) as error:
        raise Corrupt("a checkpoint is not a readable safetensors file", "Run 'sisa train' to rebuild it.") from error
    if expected is not None and _kinds(found) != _kinds(expected):
        raise Corrupt("a checkpoint's arrays are not this learner's", "Run 'sisa train' to rebuild it.")
    return {name: array.copy() for name, array in found.items()}


def _little(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _kinds(arrays: Tensors) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}
