"""Images: from their bytes, or from files next to the data, to pixels.

Pillow decodes them; it is an optional dependency (``pip install 'sisa-ray[images]'``). Shape legend: N points,
C channels, H rows, W columns.
"""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.data.encoding.cells import BadCell, BadColumn, EncodedRows, Surroundings, refuse_missing
from shards.data.folders.image_files import image_cells, path_within
from shards.encoders import ImageEncoder
from storage.errors import Invalid

_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}
_MOST_PIXELS: Final = 1 << 24
"""Limit for an image before it is resized: a small file may claim to be a huge image."""
_DAMAGED: Final = "Write the image again as PNG or JPEG, or leave the data point out."


def encode_images(encoder: ImageEncoder, array: pa.Array, around: Surroundings, out_FN: EncodedRows) -> None:
    """Write the images' pixels, channel by channel, shifted and scaled."""
    pillow = pillow_image()
    found = image_cells(array)
    if found is None:
        raise BadColumn(f"must hold images as bytes, or paths of image files, its type is {array.type}")
    cells, paths = found
    missing = np.array([cell is None and path is None for cell, path in zip(cells, paths, strict=True)])
    refuse_missing(missing, "Name an image, or leave the data point out.")
    for position, (cell, path) in enumerate(zip(cells, paths, strict=True)):
        payload = cell if cell is not None else read_image(path, around.folder, position)
        pixels_CHW = _decoded(pillow, encoder, payload, position)
        if not encoder.in_bytes:
            pixels_CHW = (pixels_CHW - encoder.shift) / encoder.scale
        out_FN[:, position] = pixels_CHW.reshape(-1)


def pillow_image() -> Any:
    """Return Pillow's module of images. Raises ``Invalid`` when it is not installed."""
    try:
        return importlib.import_module("PIL.Image")  # optional, and only for images
    except ModuleNotFoundError:
        remedy = "Run pip install 'sisa-ray[images]'."
        raise Invalid("images cannot be decoded: Pillow is not installed", remedy) from None


def read_image(path: str | None, folder: Path | None, position: int) -> bytes:
    """Return the bytes of an image file. Raises ``BadCell`` where there is none, or it is not in the folder."""
    assert path is not None
    if folder is None:
        fact = "names an image by its path, and there is no folder in which to look for it"
        raise BadCell(fact, position, "Give the image's bytes.")
    file = path_within(folder, path)
    if file is None:
        fact = "names an image file outside of the data file's folder"
        raise BadCell(fact, position, "Put the image there or into a folder below, or give its bytes.")
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        fact = f"names an image file that cannot be read{reason}"
        raise BadCell(
            fact, position, "Correct the path, relative to the data file, or give the image's bytes."
        ) from None


def _decoded(pillow: Any, encoder: ImageEncoder, payload: bytes, position: int) -> npt.NDArray[Any]:
    channels, height, width = encoder.image
    try:
        with pillow.open(io.BytesIO(payload)) as image:
            _check_size(encoder, image.height, image.width, position)
            pixels = image.convert(_MODES[channels])
            if (image.height, image.width) != (height, width):
                pixels = pixels.resize((width, height), pillow.Resampling.BILINEAR)
            pixels_HWC = np.asarray(pixels, dtype=np.uint8).reshape(height, width, channels)
    except BadCell:
        raise
    except Exception:  # noqa: BLE001  any decoder's error for damaged bytes; its text may quote them
        raise BadCell("has an image that cannot be decoded", position, _DAMAGED) from None
    return pixels_HWC.transpose(2, 0, 1)


def _check_size(encoder: ImageEncoder, found_height: int, found_width: int, position: int) -> None:
    _, height, width = encoder.image
    if found_height * found_width > _MOST_PIXELS:
        raise BadCell(f"has an image of more than {_MOST_PIXELS:,} pixels", position, "Make it smaller.")
    if (found_height, found_width) != (height, width) and not encoder.resize:
        fact = f"has an image of {found_height} x {found_width} pixels, expected {height} x {width}"
        raise BadCell(fact, position, "Resize the image, or set resize = true in [data.encode].")
