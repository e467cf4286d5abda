"""Image files: those that a table of data points names, and folders of nothing else.

Nothing is decoded here; ``shards.data.encoding.images`` does that.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa

IMAGE_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
TREE_COLUMNS: Final = ("id", "label", "image")
"""Columns of a folder of images: the file's path in the folder, the folder that it is in, and the path again."""


def is_image(name: str) -> bool:
    """Return whether a file's name says that it is an image."""
    return name.lower().endswith(IMAGE_ENDINGS)


def image_tree(folder: Path, below: Iterable[Path]) -> pa.Table | None:
    """Return the images among the files ``below`` the folder as a table of data points; None: there is no image.

    The label of each is the first folder on the way to it, and null for one that is in the folder itself.
    """
    names = [name for path in below if is_image(path.name) and not _is_hidden(name := path.relative_to(folder))]
    paths = [name.as_posix() for name in names]
    columns = (paths, [name.parts[0] if len(name.parts) > 1 else None for name in names], paths)
    return pa.table([pa.array(each, pa.string()) for each in columns], names=list(TREE_COLUMNS)) if names else None


def path_within(folder: Path, name: str) -> Path | None:
    """Return the image file that a table in ``folder`` names; None when it is outside of this folder."""
    path = Path(os.path.normpath(folder / name))
    return path if path.is_relative_to(os.path.normpath(folder)) else None


def image_cells(array: pa.Array) -> tuple[list[bytes | None], list[str | None]] | None:
    """Return each image's bytes, or its path if it has none, from a column of bytes, paths, or structures of both.

    None: the column cannot hold images.
    """
    types = pa.types
    if types.is_null(array.type):
        return [None] * len(array), [None] * len(array)
    if types.is_struct(array.type) and {field.name for field in array.type} == {"bytes", "path"}:
        pairs = [value or {"bytes": None, "path": None} for value in array.to_pylist()]
        return [pair["bytes"] for pair in pairs], [pair["path"] for pair in pairs]
    if types.is_binary(array.type) or types.is_large_binary(array.type) or types.is_fixed_size_binary(array.type):
        return array.to_pylist(), [None] * len(array)
    if types.is_string(array.type) or types.is_large_string(array.type):
        return [None] * len(array), [path or None for path in array.to_pylist()]
    return None


def named_images(array: pa.Array) -> Iterator[str]:
    """Yield the paths in a column of images, in order; of images that are given as bytes there is none."""
    payloads, paths = image_cells(array) or ([], [])
    return (path for payload, path in zip(payloads, paths, strict=True) if payload is None and path is not None)


def digest_images(folder: Path, names: Iterable[str]) -> tuple[bytes, int]:
    """Return a digest of these images' names and bytes, and how many bytes they have; a file may be absent."""
    whole, payload_bytes = hashlib.sha256(), 0
    for name in names:
        path = path_within(folder, name)
        try:
            content = b"" if path is None else path.read_bytes()
        except (OSError, ValueError):
            content = b""  # its decoding reports that, with its row
        whole.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
        payload_bytes += len(content)
    return whole.digest(), payload_bytes


def _is_hidden(name: Path) -> bool:
    return any(part.startswith((".", "_")) for part in name.parts)
