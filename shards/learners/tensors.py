"""Constituents that are NumPy arrays: their digest, their checkpoint and their part that serves.

Checkpoints have the layout of ``torch.checkpoint``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from shards.learner_kinds.leaving import FEWEST
from shards.lineage import Lineage
from storage.digests import Sha256, canonical_json
from storage.errors import Corrupt, Invalid

Tensors = Mapping[str, npt.NDArray[Any]]
"""Arrays by name."""

_MODEL: Final = "model/"
_SERVES: Final = "serves"
OTHER_DIGEST: Final = "a constituent came from its site with another digest"
_HEADER_BYTES: Final = 8
"""A safetensors file begins with the length of its header."""


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


def encode_serving(arrays: Tensors, checkpoint: Sha256) -> bytes:
    """Return the part that serves of the constituent with this checkpoint, as it leaves a site."""
    about = {"checkpoint": checkpoint, "arrays": digest_arrays(arrays)}
    return save(
        {name: _little(array) for name, array in arrays.items()}, metadata={_SERVES: canonical_json(about).decode()}
    )


def decode_serving(payload: bytes, checkpoint: Sha256) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays. Raises ``Corrupt`` when they are damaged, or those of another checkpoint."""
    arrays, about = dict[str, npt.NDArray[Any]](), None
    try:
        arrays = {name: array.copy() for name, array in load(payload).items()}
        length = int.from_bytes(payload[:_HEADER_BYTES], "little")
        about = json.loads(json.loads(payload[_HEADER_BYTES : _HEADER_BYTES + length])["__metadata__"][_SERVES])
    except (SafetensorError, ValueError, KeyError, TypeError):
        arrays.clear()
    if about != {"checkpoint": checkpoint, "arrays": digest_arrays(arrays)}:
        raise Corrupt(OTHER_DIGEST, "Fetch it again.")
    return arrays


def check_expected(arrays: Tensors, expected: Tensors) -> None:
    """Raise ``Corrupt`` when a part that serves has other names, shapes or types than ``expected``."""
    if _kinds(arrays) != _kinds(expected):
        raise not_serving()


def not_serving() -> Corrupt:
    """Return the error for arrays that this learner cannot answer from."""
    return Corrupt("what came from a site is not this learner's", "Install the same release there and here.")


def check_enough(counts: npt.NDArray[Any], what: str) -> None:
    """Raise ``Invalid`` when any of these counts of data points is above 0 and below ``FEWEST``."""
    if ((counts > 0) & (counts < FEWEST)).any():
        raise Invalid(
            f"a constituent does not leave this site: {what} has fewer than {FEWEST} data points, which it would show",
            "Set leaves = 'predictions' for the site, or give it fewer shards.",
        )


def _little(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _kinds(arrays: Tensors) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}
